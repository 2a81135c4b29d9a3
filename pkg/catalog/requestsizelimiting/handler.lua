-- request-size-limiting: compares the length that a request tells. One that tells none is held by the next part.

local config = ...

local NAMESPACE = "istio-plugins.request-size-limiting"
local TOO_LARGE = "Request size limit exceeded"

local function refuse(handle, status, message)
  pdk.fail(handle, status, message, { request_id = true })
end

local function request(handle)
  local length = pdk.header(handle, "content-length")
  if length and length:find("^%d+$") then
    if tonumber(length) > config.limit then
      refuse(handle, 413, TOO_LARGE)
    end
  elseif config.require_content_length then
    refuse(handle, 411, "A valid Content-Length header is required")
  elseif config.held and not pdk.header(handle, "upgrade") then
    pdk.set_metadata(handle, NAMESPACE, config.held, "held")
  end
end

if not config.held then
  return { request = request }
end

-- A body that is still held when there is an answer has not reached the upstream. If the answer is 413, the buffer could
-- not hold more of it.
local function response(handle)
  if pdk.metadata(handle, NAMESPACE, config.held) ~= "held" then
    return
  end
  if pdk.header(handle, "grpc-status") then
    -- Envoy has worded the answer for a gRPC client already.
    pdk.set_header(handle, "grpc-status", "8")
    pdk.set_header(handle, "grpc-message", TOO_LARGE)
  elseif pdk.header(handle, ":status") == "413" then
    refuse(handle, 413, TOO_LARGE)
  end
end

return { request = request, response = response }
