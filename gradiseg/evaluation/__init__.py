"""Evaluation: masks (IoU, boundary IoU), reconstruction (PSNR, SSIM, LPIPS) and the pictures of a run."""
