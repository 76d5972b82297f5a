"""Layers without memory, which stand between recurrent ones."""
