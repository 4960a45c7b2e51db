"""From the frames of a video to clips: sampling, crops, augmentation, corruption and labels."""
