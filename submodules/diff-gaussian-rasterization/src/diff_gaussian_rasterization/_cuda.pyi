from ._core import InputGradients, Inputs, OutputGradients, Outputs

HAS_DOUBLE: bool
COUNT_BYTES: int

class Workspace:
    gaussians: int
    instances: int
    gradients: int
    counts: int
    stream: int
    num_visible: int
    num_instances: int

def gaussian_bytes(is_double: bool, inputs: Inputs) -> int: ...
def instance_bytes(is_double: bool, inputs: Inputs, workspace: Workspace) -> int: ...
def gradient_bytes(is_double: bool, inputs: Inputs, workspace: Workspace) -> int: ...
def prepare(is_double: bool, workspace: Workspace, inputs: Inputs, outputs: Outputs) -> int: ...
def render(is_double: bool, workspace: Workspace, inputs: Inputs, outputs: Outputs) -> None: ...
def backward(
    is_double: bool,
    workspace: Workspace,
    inputs: Inputs,
    outputs: Outputs,
    output_gradients: OutputGradients,
    input_gradients: InputGradients,
) -> None: ...
