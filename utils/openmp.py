"""Import this before torch: it keeps threads that wait for work from burning the cores that others need.

OpenMP's default is to spin. Where other processes share the cores, the spinning threads hold up the working
ones: a render of the demo scene took 120 to 320 ms on two busy cores instead of 7. The runtime reads the
variable when it loads.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
