"""The traps of TGI and of huggingface_hub against the simulated engine; see docs/engine.md."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import psutil
import pytest

from bench.simulated_engine.options import Family, Options
from bench.simulated_engine.server import serving
from proto.errors import (
    EngineCutOff,
    EngineError,
    EngineOverloaded,
    EngineRejected,
    EngineTimedOut,
    PromptTooLong,
)
from services.runtime.calls import ChatCall, ChatMessage, EngineLimits, EngineStream, Grammar
from services.runtime.engine import EngineClient
from tests.scripted_engine import Fail, FailInBand, Finish, Json, Say, ScriptedEngine, Step
