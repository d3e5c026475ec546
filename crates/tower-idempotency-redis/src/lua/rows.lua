-- The rows of one namespace: they are read, compared and set in one step. `src/wire.rs` writes what is passed here, and
-- reads what is answered. `Write::apply_to` of tower-idempotency-shared says the same in Rust; a test compares them.
--
-- KEYS: the hash m, the sorted sets o, i, x and s, and then the rows of the call.
-- ARGV: the operation, the earliest and the latest time of the process, its number, and what the operation needs. Each
-- row that is written has two: for `adopt` its header and its state, for `put` this text of 135 bytes and the state:
--   1-16 token, 17 whether a token is expected, 18-33 that token, 34 the mode of the fence, 35-54 fence, 55-60 kind,
--   61 whether there is a session, 62-93 session, 94 the mode of began, 95 of since, 96-115 until, 116-135 expires
--
-- A row is a header of 156 bytes, and then its state. Numbers are decimal digits, 20 of them, so that they compare as
-- texts do, and no digit is lost in a double:
--   1 version, 2-17 token, 18-37 fence, 38-43 kind, 44 whether there is a session, 45-76 session, 77-96 until or dashes,
--   97-116 began, 117-136 since, 137-156 expires
--
-- Rules:
-- 1. All is judged before the first write. What is no row of this release is shown, and never written. A row gets its
--    entries in the indexes before it is set, and loses others after that. So an index has too much rather than too
--    little, and readers look at the row.
-- 2. Each call writes, on the same connection, for which WAIT can wait.
-- 3. No loop is longer than its caller has said: another client waits for the script.
-- 4. No key has a time to live. `sweep` alone deletes.
-- 5. An entry of x says a time no later than the expiry of a row, if that can be read: the sweep looks at the row, and
--    enters a later one.
-- 6. An entry of o has dashes between its time and its id: it is then longer than 64 bytes, so that the server does not
--    keep the index as a list, in which each entry costs a walk.
-- 7. A put is what most calls are. It makes no function, and calls no command, that it does not need.

local M, O, I, X, S = unpack(KEYS, 1, 5)
local HEADER, ONE, MOST, NONE = 156, '00000000000000000001', '18446744073709551615', '--------------------'
local MET, LARGE, CUT = 16384, 2048, 1024
local GRACE, DAY, GREATEST = '00000000000000600000', '00000000000086400000', '09223372036854775807'
local RUNNING, INTERRUPTED, RELEASED, SESSION, DISPUTED = '+00001', '+00002', '+00005', '+00006', '+00007'
local call, sub, byte, find, format = redis.call, string.sub, string.byte, string.find, string.format
local YES, KEEP, EXACTLY = byte('1ke', 1, 3)
local prefix = sub(M, 1, -2)

-- The sum of two numbers of 20 digits, exactly, and no more than the greatest of 64 bits. Of a row that was edited by
-- hand, other signs count as 0.
local function plus(a, b)
  local sum = (tonumber(a) or 0) + (tonumber(b) or 0)
  if sum < 2 ^ 53 then return format('%020.0f', sum) end
  local low = (tonumber(sub(a, 11)) or 0) + (tonumber(sub(b, 11)) or 0)
  local high = (tonumber(sub(a, 1, 10)) or 0) + (tonumber(sub(b, 1, 10)) or 0)
  if low >= 1e10 then low, high = low - 1e10, high + 1 end
  local text = format('%010.0f%010.0f', high, low)
  return text < MOST and text or MOST
end

local function is_open(kind) return kind == RUNNING or kind == INTERRUPTED or kind == DISPUTED end
local function is_operation(kind) return kind ~= '' and kind ~= RELEASED and kind ~= SESSION and kind ~= DISPUTED end

-- A primary that was demoted takes writes of connections that stay, if replicas may be written.
local info = call('INFO', 'replication')
if not find(info, 'role:master', 1, true) then
  return redis.error_reply('READONLY the server is no primary any more')
end
local _, place = find(info, 'master_replid:', 1, true)
local clock, marker = call('TIME'), call('HGET', M, 'm')
local now = format('%017.0f%03d', clock[1], clock[2] / 1000)
local earliest = now < ARGV[2] and now or ARGV[2]
local latest = now > ARGV[3] and now or ARGV[3]
-- A namespace that has no marker gets another one after each wipe.
local mark = marker or ARGV[4] .. '-' .. clock[1] .. '.' .. clock[2]
local answer = { now, place and sub(info, place + 1, place + 40) or '', mark }
local function add(value) answer[#answer + 1] = value or false end

-- Parts of a header, which is empty if there is no row.
local function fence_of(head) return sub(head, 18, 37) end
local function kind_of(head) return sub(head, 38, 43) end
local function began_of(head) return sub(head, 97, 116) end
local function expires_of(head) return sub(head, 137, 156) end
-- Returns whether there is a row of which this release does not know the form or the fence, or another program's key.
local function is_odd(head)
  local fence = fence_of(head)
  return head ~= '' and (#head < HEADER or byte(head) ~= YES or fence > GREATEST or not find(fence, '^%d+$'))
end
-- A row of which the expiry can't be read is not past it.
local function is_live(head)
  local expires = expires_of(head)
  return expires > earliest or head ~= '' and (is_odd(head) or not find(expires, '^%d+$'))
end
-- The header of a row; an empty text if there is none, and a short one if the key has another type.
local function head_of(key)
  local head = redis.pcall('GETRANGE', key, 0, HEADER - 1)
  if type(head) == 'string' then return head end
  return find(head.err, 'WRONGTYPE', 1, true) and '-' or call('GETRANGE', key, 0, HEADER - 1)
end

-- The rows of the call as they are before it.
local heads = {}
for k = 6, #KEYS do heads[k] = head_of(KEYS[k]) end

-- Sets a row, whose header is `old` now, and `new` then.
local has_set, changed = false, {}
local function set(key, old, new, state)
  local id, was, kind, began = sub(key, -32), kind_of(old), kind_of(new), began_of(new)
  local stays = is_open(was) and is_open(kind) and began_of(old) == began
  if is_open(kind) and not stays then call('ZADD', O, 0, began .. NONE .. id) end
  if is_operation(kind) and not is_operation(was) then call('ZADD', I, 0, id) end
  -- Without its entry a process that lives would count as dead: each renewal makes it anew.
  if kind == SESSION then call('ZADD', S, 0, id) end
  if old == '' or expires_of(new) < expires_of(old) then call('ZADD', X, expires_of(new), id) end
  call('SET', key, new .. state)
  if is_open(was) and not stays then call('ZREM', O, began_of(old) .. NONE .. id) end
  if is_operation(was) and not is_operation(kind) then call('ZREM', I, id) end
  if was == SESSION and kind ~= SESSION then call('ZREM', S, id) end
  if kind ~= RUNNING and kind ~= SESSION then changed[#changed + 1] = id end
  has_set = true
end

local function finish()
  -- A right that is missing must not stop the script here: the rows are written.
  if changed[1] then redis.pcall('PUBLISH', prefix .. 'c', table.concat(changed)) end
  if not marker then call('HSET', M, 'm', mark) end
  if not has_set then call('HSET', M, 'b', now) end
  return answer
end

if ARGV[1] == 'put' then
  -- Milliseconds as microseconds, of which there are no more than 64 bits have.
  local soonest = latest <= '00018446744073709551' and sub(latest, 4) .. '000' or MOST
  -- Most writes of a call have the same durations.
  local sums = {}

  -- The latest time with a duration added, but no earlier than what an earlier try of the write has said.
  local function counted(duration, said)
    sums[duration] = sums[duration] or plus(latest, duration)
    return (said and said ~= NONE and said > sums[duration]) and said or sums[duration]
  end

  -- The header that the write `w` makes of a row, or nil if it does not change it.
  local function made(old, w)
    if is_odd(old) then return nil end
    local token, live = sub(w, 1, 16), is_live(old)
    local again = live and sub(old, 2, 17) == token
    local expects = byte(w, 17) == YES
    if not again and (live ~= expects or expects and sub(old, 2, 17) ~= sub(w, 18, 33)) then return nil end
    local mode, fence = byte(w, 34), sub(w, 35, 54)
    if again or live and mode == KEEP then
      fence = fence_of(old)
    else
      if fence < fence_of(old) then fence = fence_of(old) end
      if mode ~= EXACTLY then fence = fence < soonest and soonest or plus(fence, ONE) end
    end
    local bound, expires = sub(w, 96, 115), sub(w, 116, 135)
    return '1' .. token .. fence .. sub(w, 55, 93)
      .. (bound == NONE and NONE or counted(bound, again and sub(old, 77, 96)))
      .. ((again or live and byte(w, 94) == KEEP) and began_of(old) or earliest)
      .. ((again or live and byte(w, 95) == KEEP) and sub(old, 117, 136) or now)
      .. (expires == NONE and (live and expires_of(old) or latest) or counted(expires, again and expires_of(old)))
  end

  local new_heads = {}
  for k = 6, #KEYS do new_heads[k] = made(heads[k], ARGV[2 * k - 7]) end
  for k = 6, #KEYS do
    local key, old, new = KEYS[k], heads[k], new_heads[k]
    if new then
      set(key, old, new, ARGV[2 * k - 6])
      -- The process has the state that it wrote.
      add(is_live(new) and new)
    elseif is_odd(old) or is_live(old) and call('STRLEN', key) > HEADER + MET then
      add(old)
    else
      add(is_live(old) and call('GET', key))
    end
  end
  return finish()
end

local operations = {}

function operations.get()
  for k = 6, #KEYS do add(is_odd(heads[k]) and heads[k] or is_live(heads[k]) and call('GET', KEYS[k])) end
end

function operations.adopt()
  for k = 6, #KEYS do
    local old, new = heads[k], ARGV[2 * k - 7]
    local is_free = old == '' or not is_live(old) and fence_of(old) < fence_of(new)
    if is_free then set(KEYS[k], old, new, ARGV[2 * k - 6]) end
    add(is_free and 1 or 0)
  end
end

-- Walks over an index after a member, and adds the rows that are meant, and odd ones: of a large state, a list may have
-- only the beginning. The first part of the answer is the member at which the next call goes on, or an empty text at the
-- end.
local function walk(index, is_meant)
  local after, limit, batch = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
  local members = call('ZRANGE', index, after == '' and '-' or '(' .. after, '+', 'BYLEX', 'LIMIT', 0, batch)
  add('')
  local place = #answer
  for n, member in ipairs(members) do
    local id = sub(member, -32)
    local key = prefix .. 'r:' .. id
    local head = head_of(key)
    -- Nothing says when an open row that is odd began.
    if is_odd(head) and index ~= O then add(id .. head) end
    if not is_odd(head) and is_live(head) and is_meant(head, member) then
      local is_cut = (index == I or kind_of(head) == DISPUTED) and call('STRLEN', key) > HEADER + LARGE
      add(id .. call('GETRANGE', key, 0, is_cut and HEADER + CUT - 1 or -1))
    end
    answer[place] = n == #members and n < batch and '' or member
    if #answer - place >= limit then return end
  end
end

function operations.list()
  local alive = {}
  for a = 8, #ARGV do alive['1' .. ARGV[a]] = true end
  walk(O, function(head, member)
    if member ~= began_of(head) .. NONE .. sub(member, -32) or not is_open(kind_of(head)) then return false end
    local bound = sub(head, 77, 96)
    return kind_of(head) ~= RUNNING or bound == NONE or bound <= earliest or not alive[sub(head, 44, 76)]
  end)
end

function operations.sessions()
  walk(S, function(head) return kind_of(head) ~= RELEASED end)
end

function operations.scan()
  walk(I, function(head) return is_operation(kind_of(head)) end)
end

function operations.sweep()
  local past = format('%.0f', tonumber(earliest) - tonumber(GRACE))
  local ids, deleted = call('ZRANGE', X, '-inf', past, 'BYSCORE', 'LIMIT', 0, ARGV[5]), 0
  for _, id in ipairs(ids) do
    local key = prefix .. 'r:' .. id
    local head = head_of(key)
    local is_readable = not is_odd(head) and find(expires_of(head), '^%d+$')
    if head ~= '' and (not is_readable or plus(expires_of(head), GRACE) > earliest) then
      -- A later release, or an operator, deletes what this one can't read. It is looked at again each day.
      call('ZADD', X, is_readable and expires_of(head) or plus(earliest, DAY), id)
    else
      call('UNLINK', key)
      for _, index in ipairs({ X, I, S }) do call('ZREM', index, id) end
      call('ZREM', O, began_of(head) .. NONE .. id)
      deleted = deleted + (head == '' and 0 or 1)
    end
  end
  add(#ids)
  add(deleted)
end

operations[ARGV[1]]()
return finish()
