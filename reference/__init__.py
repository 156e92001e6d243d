"""The reference model: a small CARZero trained on openly licensed radiographs, for demonstration only."""
