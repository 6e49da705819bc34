"""From photographs to a scene that trains: camera poses, id masks, and the check of both."""
