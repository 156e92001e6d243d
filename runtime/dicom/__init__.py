"""DICOM objects to 8-bit grey: reading, stored values, and the grey scale chain of PS3.3 C.11."""
