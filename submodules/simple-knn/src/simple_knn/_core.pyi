MAX_NEIGHBOURS: int

def mean_squared_distance(points: int, count: int, result: int, threads: int) -> None: ...

class KdTree:
    def __init__(self, points: int, count: int, threads: int) -> None: ...
    @property
    def count(self) -> int: ...
    def refit(self, points: int, threads: int) -> bool: ...
    def nearest(
        self,
        queries: int,
        exclude: int,
        num_queries: int,
        k: int,
        indices: int,
        squared_distances: int,
        threads: int,
    ) -> None: ...

def directional_nearest(
    points: int,
    count: int,
    origins: int,
    directions: int,
    num_origins: int,
    k: int,
    indices: int,
    projections: int,
    threads: int,
) -> None: ...
