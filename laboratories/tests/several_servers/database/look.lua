local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function look(key)
  local head = redis.call('GETRANGE', key, 0, 156)
  local function number(from) return tonumber(string.sub(head, from, from + 19)) or 0 end
  local kind = tonumber(string.sub(head, 38, 43))
  return { kind = kind, session = string.sub(head, 44, 44) == '1' and string.sub(head, 45, 76), ends = number(77),
    began = number(97), expires = number(137),
    is_later = string.sub(head, 1, 1) ~= '1' or kind == 99 or string.sub(head, 157, 157) == 'c' }
end
local function rows(namespace) return redis.call('KEYS', 'ti:{' .. namespace .. '}:r:*') end
local function lives(row) return (row.kind == 5 or row.kind == 6) and row.ends > now end
