"""The model families as torch modules, in their published key layouts."""
