"""Raw sources: found, unpacked, and read as documents."""
