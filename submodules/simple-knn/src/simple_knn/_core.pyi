MAX_NEIGHBOURS: int

def mean_squared_distance(points: int, count: int, result: int, threads: int) -> None: ...
def nearest(
    points: int,
    count: int,
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
