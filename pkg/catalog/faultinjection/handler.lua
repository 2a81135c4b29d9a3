-- fault-injection: makes the answer of Envoy's fault filter, which stands right behind this chunk, JSON.

local config = ...

local NAMESPACE = "istio-plugins.fault-injection"

local function request(handle)
  pdk.set_metadata(handle, NAMESPACE, config.id, "asked")
end

-- A request that has not passed the filter was aborted there, if it is answered as an abort is. gRPC has no body.
local function response(handle)
  if pdk.metadata(handle, NAMESPACE, config.id) ~= "asked" or pdk.header(handle, "grpc-status") then
    return
  end
  local status = pdk.header(handle, ":status")
  if status == (config.status or "200") then
    pdk.fail(handle, status, "fault filter abort")
  end
end

return { request = request, response = response }
