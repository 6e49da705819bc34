has_openmp: bool

def isa() -> str: ...
def available_isas() -> list[str]: ...
def select_isa(name: str) -> None: ...
def vector_bytes() -> int: ...
def l1_ssim_scratch(channels: int, height: int, width: int) -> int: ...
def l1_ssim(
    is_double: bool,
    image: int,
    target: int,
    target_is_uint8: bool,
    dL_dimage: int,
    scratch: int,
    channels: int,
    height: int,
    width: int,
    lambda_dssim: float,
    threads: int,
) -> tuple[float, float]: ...
def cross_entropy_scratch(
    channels: int, classes: int, pixels: int, threads: int, scalar_bytes: int
) -> int: ...
def cross_entropy(
    is_double: bool,
    features: int,
    weight: int,
    bias: int,
    labels: int,
    label_type: int,
    pixel_weights: int,
    dL_dfeatures: int,
    dL_dweight: int,
    dL_dbias: int,
    scratch: int,
    scale: float,
    channels: int,
    classes: int,
    pixels: int,
    ignores: bool,
    ignore_label: int,
    threads: int,
) -> tuple[float, int]: ...
def tiles_scratch(channels: int, classes: int, pixels: int, threads: int, scalar_bytes: int) -> int: ...

class TilesFloat:
    def __init__(
        self,
        weight: int,
        bias: int,
        labels: int,
        label_type: int,
        pixel_weights: int,
        dL_dweight: int,
        dL_dbias: int,
        scratch: int,
        channels: int,
        classes: int,
        width: int,
        height: int,
        ignores: bool,
        ignore_label: int,
        threads: int,
    ) -> None: ...
    @property
    def bad_labels(self) -> int: ...
    @property
    def address(self) -> int: ...
    def loss(self) -> float: ...

class TilesDouble(TilesFloat): ...

def adam(pointers: list[int], sizes: list[int], settings: list[float], threads: int) -> None: ...
