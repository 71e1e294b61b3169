"""An engine without a model: the wire of TGI and of vLLM over a published timing model."""
