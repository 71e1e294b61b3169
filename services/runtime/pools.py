"""Engine pools as the settings describe them."""

from __future__ import annotations

from proto.names import Pool
from services.runtime.balance import PoolPolicy
from services.runtime.calls import EngineLimits
from services.runtime.dialects import DIALECTS
from services.runtime.endpoints import EnginePool
from services.runtime.settings import EngineSettings


def engine_pool(settings: EngineSettings, pool: Pool) -> EnginePool:
    """Return the engines of `pool`; raises `ValueError` if the settings name none."""
    key = settings.engine_api_key
    return EnginePool(
        settings.urls(pool),
        api_key=key.get_secret_value() if key else None,
        model=settings.large_model if pool is Pool.LARGE else settings.small_model,
        dialect=DIALECTS.get(settings.engine_dialect),
        limits=EngineLimits(
            connect_s=settings.connect_timeout_s,
            first_token_s=settings.first_token_timeout_s,
            between_tokens_s=settings.between_tokens_timeout_s,
            total_s=settings.total_timeout_s,
        ),
        policy=PoolPolicy(
            load_factor=settings.load_factor,
            max_in_flight=settings.max_in_flight,
            silent_after_s=settings.silent_after_s,
            overload_wait_s=settings.overload_wait_s,
            hedge_percentile=settings.hedge_percentile,
            resolve_every_s=settings.resolve_every_s,
        ),
    )
