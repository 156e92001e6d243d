"""The edge install: resolved for every platform, laid out for a machine without a network, and measured."""
