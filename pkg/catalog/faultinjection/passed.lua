-- Behind Envoy's fault filter: the request was not aborted.

local config = ...

return {
  request = function(handle)
    pdk.set_metadata(handle, "istio-plugins.fault-injection", config.id, "passed")
  end,
}
