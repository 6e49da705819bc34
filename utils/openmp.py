"""Import this before torch: it bounds how long threads that wait for work may spin.

OpenMP's default is to spin for milliseconds. Where other processes share the cores, that holds up the threads
that work: a render of the demo scene took 120 to 320 ms on two busy cores instead of 7. Not spinning at all
makes a training step on idle cores half as long again: every parallel loop first has to wake its threads.
The GNU runtime reads the variable, a count of spins, when it loads.
"""

import os

if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # bridges the gap between two loops of a step
