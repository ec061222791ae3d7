"""What the emulator remembers: SQLite for records, files for blobs. Everything survives a restart."""
