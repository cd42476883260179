"""Files in and out. Every file is written to a temporary name and renamed, so a crash leaves the old one or none."""
