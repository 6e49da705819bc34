def tree_bytes(count: int) -> int: ...
def directional_bytes(count: int, num_origins: int, k: int) -> int: ...
def morton_codes(points: int, count: int, bounds: int, codes: int, stream: int) -> None: ...
def build_tree(points: int, count: int, order: int, tree: int, stream: int) -> None: ...
def mean_squared_distance(tree: int, count: int, result: int, stream: int) -> None: ...
def nearest(
    tree: int,
    count: int,
    queries: int,
    exclude: int,
    num_queries: int,
    k: int,
    indices: int,
    squared_distances: int,
    stream: int,
) -> None: ...
def directional_nearest(
    points: int,
    count: int,
    origins: int,
    directions: int,
    num_origins: int,
    k: int,
    workspace: int,
    indices: int,
    projections: int,
    stream: int,
) -> None: ...
