-- In front of a filter of Envoy that answers: makes its answer JSON.

local config = ...

local NAMESPACE = "istio-plugins.json-reply"

local function request(handle)
  pdk.set_metadata(handle, NAMESPACE, config.id, "asked")
end

-- A request that has not passed the filter was answered there, if it is answered as the filter does. gRPC has no body.
local function response(handle)
  if pdk.metadata(handle, NAMESPACE, config.id) ~= "asked" or pdk.header(handle, "grpc-status") then
    return
  end
  local status = pdk.header(handle, ":status")
  if status == config.status then
    pdk.fail(handle, status, config.message)
  end
end

return { request = request, response = response }
