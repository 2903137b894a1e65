"""An index in shards on the machines of a Ray cluster (``pip install 'rails-wgpu[ray]'``).

>>> import rails_wgpu.ray                                                         # doctest: +SKIP
>>> rails_wgpu.ray.build("items/*.parquet", "mol.safetensors", "index", shards=4) # doctest: +SKIP
>>> service = rails_wgpu.ray.deploy("index", replicas=2)                          # doctest: +SKIP
>>> ids, scores = service.search(queries, k=10)                                   # doctest: +SKIP

A shard is an index folder of its own. An item belongs to the shard that a hash of its id names. Exact results are those of
one index with the same items, bit for bit on CPUs. ``docs/SCALE.md`` says how it works and what it costs.
"""

try:
    import ray as _ray  # noqa: F401
except ImportError as error:
    raise ImportError("rails_wgpu.ray needs Ray, found none: pip install 'rails-wgpu[ray]'") from error

from ._build import build
from ._errors import OutOfDate, ShardUnavailable
from ._http import Endpoint
from ._service import Service, deploy

__all__ = ["Endpoint", "OutOfDate", "Service", "ShardUnavailable", "build", "deploy"]
