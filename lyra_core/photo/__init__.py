"""What can be read from one photo: file, camera, sky, floor, obstacles."""
