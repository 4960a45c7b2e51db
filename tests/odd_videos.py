"""What a reader makes of each of the odd videos, as their README says: measured with FFmpeg."""

# File -> frames, (height, width), whether frames are missing; None where nothing can be read.
ODD = {
    "zero_byte.mp4": None,
    "text_file.mp4": None,
    "small_no_streams.mp4": None,
    "small_audio_only.mp4": None,
    "derived_truncated_no_moov.mp4": None,
    "derived_truncated_faststart.mp4": (30, (180, 320), True),
    "derived_truncated.avi": (70, (332, 488), True),
    "decord_corrupted.mp4": (49, (720, 1280), True),
    "derived_one_frame.mp4": (1, (180, 320), False),
    "small_one_frame_vp8.webm": (1, (8, 8), True),  # Its nominal rate of 1000 frames per second declares 1000.
    "derived_vfr.mp4": (32, (180, 320), False),
    "derived_vp9.webm": (66, (180, 320), False),
    "gulpio_vp8_audio.webm": (140, (144, 256), False),
    "torchcodec_hevc_10bit.mp4": (30, (200, 200), False),
    "torchcodec_two_video_streams.mp4": (325, (180, 320), False),
    "decord_rotate90.mov": (3, (568, 320), False),
    "decord_unordered.mov": (4, (50, 50), False),
    "20bn_yuv444_40x30.mp4": (13, (30, 40), False),
    "derived_odd_dims_307x153.mp4": (66, (153, 307), False),
    "derived_gray_ffv1.mkv": (9, (180, 320), False),
    "mp4_content_named.avi": (66, (180, 320), False),
    "muxjs_segment.ts": (134, (300, 388), False),
}
