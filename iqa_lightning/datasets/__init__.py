"""Data sets of rated images: tables, splits and loaders, one file a published set."""
