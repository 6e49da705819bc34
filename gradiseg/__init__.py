"""What GradiSeg adds to 3D Gaussian Splatting: identities, their losses, and boundary-aware densification."""
