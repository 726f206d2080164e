"""What stands on the disk: files written whole, the lock of a directory, and what is kept between runs."""
