-- Applies every operation, or none.
--
-- KEYS[n] is the key of operation n. ARGV has six values for each: "set" or "delete"; "hash" or "json"; the version
-- that the item must have, "0" for any; the data; "1" if the write is a first-write; the seconds to live, "" to leave
-- the life of the item as it is, "0" to end it never.
--
-- Returns 0, or the number of the operation that the item's version forbids.

local WIDTH = 6

-- What earlier operations make of a key, so that a later one is checked against that.
local known = {}

local function read(key, kind)
  local version, first
  if kind == "json" then
    version = redis.pcall("JSON.GET", key, ".version")
    first = redis.pcall("JSON.GET", key, ".first-write")
  else
    local fields = redis.pcall("HMGET", key, "version", "first-write")
    version, first = fields, false
    if not fields.err then
      version, first = fields[1], fields[2]
    end
  end
  -- An error means that the key holds something else, such as a plain string of an old release.
  if type(version) == "table" then
    return { version = false, first = false, foreign = true }
  end
  return { version = version, first = first and type(first) ~= "table", foreign = false }
end

local function allows(item, verb, expected)
  if not item.version or item.version == expected then
    return true
  end
  return expected == "0" and (verb == "delete" or not item.first)
end

local function after(item, verb, kind, expected, first)
  if verb == "delete" then
    return { version = false, first = false, foreign = false }
  end
  if kind == "json" then
    -- A document is replaced as a whole, the mark of an earlier first-write included.
    return { version = string.format("%d", (item.version or expected) + 1), first = first, foreign = false }
  end
  return { version = string.format("%d", (item.version or 0) + 1), first = first or item.first, foreign = false }
end

local function write(key, kind, item, data, first)
  if item.foreign then
    redis.call("DEL", key)
  end
  if kind == "json" then
    redis.call("JSON.SET", key, "$", data)
    if first then
      redis.call("JSON.SET", key, ".first-write", 0)
    end
    redis.call("JSON.SET", key, ".version", item.next)
  else
    redis.call("HSET", key, "data", data)
    if first then
      redis.call("HSET", key, "first-write", 0)
    end
    redis.call("HINCRBY", key, "version", 1)
  end
end

local function set_life(key, seconds)
  if seconds == "0" then
    redis.call("PERSIST", key)
  elseif seconds ~= "" then
    redis.call("EXPIRE", key, seconds)
  end
end

local items = {}
for n, key in ipairs(KEYS) do
  local at = (n - 1) * WIDTH
  local verb, kind, expected, first = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 5] == "1"
  local item = known[key] or read(key, kind)
  if not allows(item, verb, expected) then
    return n
  end
  known[key] = after(item, verb, kind, expected, first)
  item.next = known[key].version
  items[n] = item
end

for n, key in ipairs(KEYS) do
  local at = (n - 1) * WIDTH
  if ARGV[at + 1] == "delete" then
    redis.call("DEL", key)
  else
    write(key, ARGV[at + 2], items[n], ARGV[at + 4], ARGV[at + 5] == "1")
    set_life(key, ARGV[at + 6])
  end
end
return 0
