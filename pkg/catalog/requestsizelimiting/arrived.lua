-- Behind the buffer, which has the whole body by now.

local config = ...

local NAMESPACE = "istio-plugins.request-size-limiting"

local function request(handle)
  if pdk.metadata(handle, NAMESPACE, config.held) ~= "held" then
    return
  end
  local body = handle:body()
  pdk.set_metadata(handle, NAMESPACE, config.held, "arrived")
  if body and body:length() > config.limit then
    pdk.fail(handle, 413, "Request size limit exceeded", { request_id = true })
  end
end

return { request = request }
