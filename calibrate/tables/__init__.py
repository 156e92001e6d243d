"""The CSV files that evaluation reads and writes: labels, scores, boxes, lists of images."""
