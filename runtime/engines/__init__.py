"""Engines: a bundle's graphs compiled and gated on one device, kept in the site directory."""
