-- In front of Envoy's compressors: of codings that the client likes alike, they take the first that it names.

local config = ...

local ranks = {}
for i, algorithm in ipairs(config.algorithms) do
  ranks[algorithm] = i
end

-- Puts our algorithms in front, in our order. What the client says stays the same, since order has no meaning there.
local function request(handle)
  local asked = table.concat(pdk.headers(handle, "accept-encoding"), ",")
  local ours, others = {}, {}
  for item in asked:gmatch("[^,]+") do
    item = pdk.trim(item)
    local rank = ranks[item:match("^[^;%s]*")]
    if rank and not ours[rank] then
      ours[rank] = item
    else
      others[#others + 1] = item
    end
  end
  local sorted = {}
  for rank = 1, #config.algorithms do
    sorted[#sorted + 1] = ours[rank]
  end
  if sorted[2] then
    for i = 1, #others do
      sorted[#sorted + 1] = others[i]
    end
    pdk.set_header(handle, "accept-encoding", table.concat(sorted, ", "))
  end
end

return { request = request }
