"""What lies on disk: video files, JPEG frames and prepared records."""
