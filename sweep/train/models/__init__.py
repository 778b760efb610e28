"""The decoder and its conversion to stock classes."""
