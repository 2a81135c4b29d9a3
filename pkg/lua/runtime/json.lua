-- JSON (RFC 8259) that gives back what it read: numbers in lists and objects keep their text, objects the order of their
-- keys, empty lists stay lists, and null is a value.
--
-- What a Lua table cannot say by itself is in its metatable, which plugins cannot see: `list` marks a list, `keys` is the
-- order of an object's keys, `text` the texts of numbers that would be written differently.

local byte, char, find, format, gsub = string.byte, string.char, string.find, string.format, string.gsub
local match, sub = string.match, string.sub
local concat, sort = table.concat, table.sort
local floor, huge = math.floor, math.huge
local metatable_of = debug.getmetatable

local DEEPEST = 64

local null = newproxy(true)
metatable_of(null).__tostring = function() return "null" end
metatable_of(null).__metatable = false

-- OURS is in the metatables that are made here, so that a plugin's own are not taken for them.
local OURS = {}
local LIST = {__metatable = false, [OURS] = true, list = true}

local function notes(t)
  local meta = metatable_of(t)
  return meta and rawget(meta, OURS) and meta or nil
end

local function list(t)
  local known = notes(t)
  if known and known.list then
    return t
  elseif known then
    error("this is a decoded object, not a list", 2)
  end
  return setmetatable(t, LIST)
end

-- Decoding raises {message} from anywhere below; only decode catches it. A plugin's own tables are never called.
local function fail(at, what)
  error({message = what .. " at byte " .. at}, 0)
end

local function skip(text, at)
  return find(text, "[^ \t\n\r]", at) or #text + 1
end

-- RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF. Returns the length of the sequence at i, or nil.
local function sequence(text, i)
  local a, b, c, d = byte(text, i, i + 3)
  local function follows(x, least, most)
    return x and x >= (least or 0x80) and x <= (most or 0xBF)
  end
  if a < 0x80 then return 1 end
  if a < 0xC2 then return nil end
  if a < 0xE0 then return follows(b) and 2 or nil end
  if a < 0xF0 then
    return follows(b, a == 0xE0 and 0xA0, a == 0xED and 0x9F) and follows(c) and 3 or nil
  end
  if a > 0xF4 then return nil end
  return follows(b, a == 0xF0 and 0x90, a == 0xF4 and 0x8F) and follows(c) and follows(d) and 4 or nil
end

local function check_utf8(text, at)
  local i = find(text, "[\128-\255]")
  while i do
    local length = sequence(text, i)
    if not length then
      fail(at + i, "invalid UTF-8")
    end
    i = find(text, "[\128-\255]", i + length)
  end
end

local function utf8(code)
  if code < 0x80 then
    return char(code)
  elseif code < 0x800 then
    return char(0xC0 + floor(code / 64), 0x80 + code % 64)
  elseif code < 0x10000 then
    return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
  end
  return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

local ESCAPES = {['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

-- unicode reads \uXXXX at the backslash, with the second half of a pair.
local function unicode(text, at)
  local code = tonumber(match(text, "^\\u(%x%x%x%x)", at) or fail(at, "invalid escape"), 16)
  if code < 0xD800 or code > 0xDFFF then
    return utf8(code), at + 6
  end
  local low = tonumber(match(text, "^\\u([dD][c-fC-F]%x%x)", at + 6) or "", 16)
  if code > 0xDBFF or not low then
    fail(at, "half of a surrogate pair")
  end
  return utf8(0x10000 + (code - 0xD800) * 0x400 + (low - 0xDC00)), at + 12
end

-- read_string reads at the opening quote and returns the text and the place behind the closing one.
local function read_string(text, at)
  local from = at + 1
  local stop = find(text, '[%z\1-\31"\\]', from)
  if stop and byte(text, stop) == 34 then
    local plain = sub(text, from, stop - 1)
    check_utf8(plain, at)
    return plain, stop + 1
  end
  local pieces, n = {}, 0
  while true do
    if not stop then
      fail(at, "a string without end")
    end
    local piece = sub(text, from, stop - 1)
    check_utf8(piece, from - 1)
    n = n + 1
    pieces[n] = piece
    local c = byte(text, stop)
    if c == 34 then
      return concat(pieces), stop + 1
    elseif c ~= 92 then
      fail(stop, "a control character in a string")
    end
    local plain = ESCAPES[sub(text, stop + 1, stop + 1)]
    n = n + 1
    if plain then
      pieces[n], from = plain, stop + 2
    else
      pieces[n], from = unicode(text, stop)
    end
    stop = find(text, '[%z\1-\31"\\]', from)
  end
end

-- read_number returns the number, the place behind it, and its text where writing the number would give another.
local function read_number(text, at)
  local whole, behind = match(text, "^(-?%d+)()", at)
  if not whole or find(whole, "^-?0%d") then
    fail(at, "an invalid number")
  end
  local simple = true
  local after = match(text, "^%.%d+()", behind)
  if after then
    behind, simple = after, false
  end
  after = match(text, "^[eE][+-]?%d+()", behind)
  if after then
    behind, simple = after, false
  end
  local spelling = sub(text, at, behind - 1)
  if simple and #spelling <= 15 and spelling ~= "-0" then
    return tonumber(spelling), behind
  end
  return tonumber(spelling), behind, spelling
end

local read_value

local function read_list(text, at, depth)
  local out, n, texts = {}, 0, nil
  at = skip(text, at + 1)
  if byte(text, at) == 93 then
    return setmetatable(out, LIST), at + 1
  end
  while true do
    local value, spelling
    value, at, spelling = read_value(text, at, depth)
    n = n + 1
    out[n] = value
    if spelling then
      texts = texts or {}
      texts[n] = spelling
    end
    at = skip(text, at)
    local c = byte(text, at)
    if c == 93 then
      return setmetatable(out, texts and {__metatable = false, [OURS] = true, list = true, text = texts} or LIST), at + 1
    elseif c ~= 44 then
      fail(at, "neither , nor ] after an item")
    end
    at = skip(text, at + 1)
  end
end

local function read_object(text, at, depth)
  local out, keys, n, texts = {}, {}, 0, {}
  local meta = {__metatable = false, [OURS] = true, keys = keys, text = texts}
  at = skip(text, at + 1)
  if byte(text, at) == 125 then
    return setmetatable(out, meta), at + 1
  end
  while true do
    if byte(text, at) ~= 34 then
      fail(at, "a key is needed")
    end
    local key, value
    key, at = read_string(text, at)
    at = skip(text, at)
    if byte(text, at) ~= 58 then
      fail(at, "no : after a key")
    end
    if out[key] == nil then
      n = n + 1
      keys[n] = key
    end
    value, at, texts[key] = read_value(text, skip(text, at + 1), depth)
    out[key] = value
    at = skip(text, at)
    local c = byte(text, at)
    if c == 125 then
      return setmetatable(out, meta), at + 1
    elseif c ~= 44 then
      fail(at, "neither , nor } after a member")
    end
    at = skip(text, at + 1)
  end
end

function read_value(text, at, depth)
  local c = byte(text, at)
  if c == 34 then
    return read_string(text, at)
  elseif c == 123 or c == 91 then
    if depth >= DEEPEST then
      fail(at, "nesting above " .. DEEPEST)
    end
    return (c == 123 and read_object or read_list)(text, at, depth + 1)
  elseif c == 45 or c and c >= 48 and c <= 57 then
    return read_number(text, at)
  elseif sub(text, at, at + 3) == "true" then
    return true, at + 4
  elseif sub(text, at, at + 4) == "false" then
    return false, at + 5
  elseif sub(text, at, at + 3) == "null" then
    return null, at + 4
  end
  fail(at, c and "not a JSON value" or "the text ends")
end

local function decode(text)
  if type(text) ~= "string" then
    return nil, "a string is needed, not " .. type(text)
  end
  local ok, value, at = pcall(read_value, text, skip(text, 1), 0)
  if not ok then
    return nil, type(value) == "table" and value.message or tostring(value)
  end
  at = skip(text, at)
  if at <= #text then
    return nil, "more than one value at byte " .. at
  end
  return value
end

local SHORT = {['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t"}

local function escape(c)
  return SHORT[c] or format("\\u%04x", byte(c))
end

-- repaired replaces what is no UTF-8 by U+FFFD, one for each byte, since the output must be JSON.
local function repaired(text)
  local pieces, n, from = {}, 0, 1
  local i = find(text, "[\128-\255]")
  while i do
    local length = sequence(text, i)
    if not length then
      n = n + 1
      pieces[n] = sub(text, from, i - 1) .. "\239\191\189"
      from = i + 1
    end
    i = find(text, "[\128-\255]", i + (length or 1))
  end
  return n == 0 and text or concat(pieces) .. sub(text, from)
end

local function quote(text)
  if find(text, "[\128-\255]") then
    text = repaired(text)
  end
  if find(text, '[%z\1-\31"\\]') then
    text = gsub(text, '[%z\1-\31"\\]', escape)
  end
  return '"' .. text .. '"'
end

local function number_text(n)
  if n ~= n or n == huge or n == -huge then
    error({message = "JSON has no " .. tostring(n)}, 0)
  end
  if n == floor(n) and n > -1e15 and n < 1e15 then
    return format("%d", n)
  end
  local short = format("%.15g", n)
  if tonumber(short) == n then
    return short
  end
  return format("%.17g", n)
end

-- length of a table that is a list, or nil. A table that nobody marked is a list if its keys are 1 to n.
local function list_length(t, meta)
  local n = 0
  for _ in next, t do
    n = n + 1
  end
  local marked = meta and meta.list
  if n == 0 then
    return marked and 0 or nil
  end
  if meta and meta.keys then
    return nil
  end
  for i = 1, n do
    if rawget(t, i) == nil then
      if marked or rawget(t, 1) ~= nil then
        error({message = "a list with a hole, or with keys"}, 0)
      end
      return nil
    end
  end
  return n
end

-- ordered are the keys of an object: first those it was read with, in their order, then the others, sorted.
local function ordered(t, meta)
  local keys, n, seen = {}, 0, {}
  for _, key in ipairs(meta and meta.keys or {}) do
    if rawget(t, key) ~= nil then
      n = n + 1
      keys[n], seen[key] = key, true
    end
  end
  local others = {}
  for key in next, t do
    if type(key) ~= "string" then
      error({message = "an object with a key that is a " .. type(key)}, 0)
    end
    if not seen[key] then
      others[#others + 1] = key
    end
  end
  sort(others)
  for i = 1, #others do
    keys[n + i] = others[i]
  end
  return keys
end

local write

local function write_table(t, out, depth)
  if depth >= DEEPEST then
    error({message = "nesting above " .. DEEPEST}, 0)
  end
  local meta = notes(t)
  local texts = meta and meta.text
  local length = list_length(t, meta)
  if length then
    out[#out + 1] = "["
    for i = 1, length do
      if i > 1 then
        out[#out + 1] = ","
      end
      write(rawget(t, i), texts and texts[i], out, depth + 1)
    end
    out[#out + 1] = "]"
    return
  end
  out[#out + 1] = "{"
  for i, key in ipairs(ordered(t, meta)) do
    out[#out + 1] = (i > 1 and "," or "") .. quote(key) .. ":"
    write(rawget(t, key), texts and texts[key], out, depth + 1)
  end
  out[#out + 1] = "}"
end

function write(value, spelling, out, depth)
  local kind = type(value)
  if kind == "table" then
    return write_table(value, out, depth)
  elseif kind == "string" then
    out[#out + 1] = quote(value)
  elseif kind == "number" then
    out[#out + 1] = spelling and tonumber(spelling) == value and spelling or number_text(value)
  elseif kind == "boolean" then
    out[#out + 1] = value and "true" or "false"
  elseif value == null then
    out[#out + 1] = "null"
  else
    error({message = "JSON has no " .. kind}, 0)
  end
end

local function encode(value)
  local out = {}
  local ok, problem = pcall(write, value, nil, out, 0)
  if not ok then
    return nil, type(problem) == "table" and problem.message or tostring(problem)
  end
  return concat(out)
end

-- text is the JSON text of one member of a table: what encode writes for it there, so a decoded number as it was spelt.
local function text(t, key)
  local out, meta = {}, notes(t)
  local ok, problem = pcall(write, rawget(t, key), meta and meta.text and meta.text[key], out, 0)
  if not ok then
    return nil, type(problem) == "table" and problem.message or tostring(problem)
  end
  return concat(out)
end

return {decode = decode, encode = encode, text = text, array = list, null = null, quote = quote}
