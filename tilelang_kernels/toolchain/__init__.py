"""From a TileLang function to source, machine code, and runs of it."""
