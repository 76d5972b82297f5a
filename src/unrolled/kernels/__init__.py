"""Operations: each has a reference that defines it and faster backends with the same signature."""
