MAX_CHANNELS: int
MAX_CLASSES: int

def l1_ssim_floats(channels: int, height: int, width: int, derivatives: bool) -> int: ...
def l1_ssim(
    image: int,
    target: int,
    target_is_bytes: bool,
    channels: int,
    height: int,
    width: int,
    lambda_dssim: float,
    scratch: int,
    derivatives: bool,
    result: int,
    stream: int,
) -> None: ...
def l1_ssim_backward(
    image: int,
    target: int,
    target_is_bytes: bool,
    channels: int,
    height: int,
    width: int,
    lambda_dssim: float,
    scratch: int,
    upstream: int,
    dL_dimage: int,
    stream: int,
) -> None: ...
def cross_entropy_bytes(classes: int, pixels: int) -> int: ...
def cross_entropy(
    features: int,
    weight: int,
    bias: int,
    labels: int,
    label_type: int,
    pixel_weights: int,
    channels: int,
    classes: int,
    pixels: int,
    ignores: bool,
    ignore_label: int,
    scale: float,
    factor: int,
    loss: int,
    dL_dfeatures: int,
    dL_dweight: int,
    dL_dbias: int,
    scratch: int,
    stream: int,
) -> None: ...
def adam(pointers: list[int], sizes: list[int], settings: list[float], stream: int) -> None: ...
