# The wire format of the border: JSON (RFC 8259) for whatever is no array. Beside it, as Python's json module: Infinity,
# -Infinity and NaN. Objects become dictionaries with strings as keys, whole numbers Int64, or UInt64 where that is too
# small.

struct JSONText
    bytes::Vector{UInt8}
end

"The value that a JSON `text` stands for."
function parse_json(text::AbstractString)
    source = JSONText(Vector{UInt8}(codeunits(String(text))))
    value, at = json_value(source, skip_space(source, 1))
    skip_space(source, at) > length(source.bytes) || json_fault(source, at)
    return value
end

json_fault(source::JSONText, at::Int) =
    throw(ArgumentError("no JSON at byte $at of $(repr(String(copy(source.bytes))))"))
byte(source::JSONText, at::Int) = at <= length(source.bytes) ? source.bytes[at] : 0x00

function skip_space(source::JSONText, at::Int)
    while (b = byte(source, at)) == 0x20 || b == 0x09 || b == 0x0a || b == 0x0d
        at += 1
    end
    return at
end

const JSON_WORDS = Pair{String,Any}["true" => true, "false" => false, "null" => nothing, "NaN" => NaN,
                                    "Infinity" => Inf, "-Infinity" => -Inf]
stands_at(word::String, source::JSONText, at::Int) =
    all(byte(source, at + k - 1) == codeunit(word, k) for k in 1:ncodeunits(word))

function json_value(source::JSONText, at::Int)
    b = byte(source, at)
    b == UInt8('{') && return json_items(source, at, UInt8('}'))
    b == UInt8('[') && return json_items(source, at, UInt8(']'))
    b == UInt8('"') && return json_string(source, at)
    for (word, value) in JSON_WORDS
        stands_at(word, source, at) && return value, at + ncodeunits(word)
    end
    return json_number(source, at)
end

function json_items(source::JSONText, at::Int, close::UInt8)
    named = close == UInt8('}')
    found = named ? Dict{String,Any}() : Any[]
    at = skip_space(source, at + 1)
    byte(source, at) == close && return found, at + 1
    while true
        name = ""
        if named
            byte(source, at) == UInt8('"') || json_fault(source, at)
            name, at = json_string(source, at)
            at = skip_space(source, at)
            byte(source, at) == UInt8(':') || json_fault(source, at)
            at = skip_space(source, at + 1)
        end
        value, at = json_value(source, at)
        named ? (found[name] = value) : push!(found, value)
        at = skip_space(source, at)
        byte(source, at) == close && return found, at + 1
        byte(source, at) == UInt8(',') || json_fault(source, at)
        at = skip_space(source, at + 1)
    end
end

function json_string(source::JSONText, at::Int)
    out = IOBuffer()
    at += 1
    while (b = byte(source, at)) != UInt8('"')
        at > length(source.bytes) && json_fault(source, at)
        if b == UInt8('\\')
            at += 1
            short = findfirst(isequal(byte(source, at)), codeunits("\"\\/bfnrt"))
            if short !== nothing
                write(out, codeunits("\"\\/\b\f\n\r\t")[short])
            elseif byte(source, at) == UInt8('u')
                code, at = json_unicode(source, at)
                print(out, code)
            else
                json_fault(source, at)
            end
        else
            write(out, b)
        end
        at += 1
    end
    return String(take!(out)), at + 1
end

"The character of \\uXXXX, or of two of them that are a surrogate pair; `at` is left at its last digit."
function json_unicode(source::JSONText, at::Int)
    digits(from) = from + 3 <= length(source.bytes) ?
                   tryparse(UInt32, String(source.bytes[from:from+3]); base=16) : nothing
    high = digits(at + 1)
    high === nothing && json_fault(source, at)
    at += 4
    0xd800 <= high < 0xdc00 || return Char(high), at
    low = byte(source, at + 1) == UInt8('\\') && byte(source, at + 2) == UInt8('u') ? digits(at + 3) : nothing
    low === nothing && json_fault(source, at)
    return Char(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00)), at + 6
end

function json_number(source::JSONText, at::Int)
    last, whole = at, true
    while (b = byte(source, last)) in codeunits("+-.0123456789eE")
        whole &= !(b in codeunits(".eE"))
        last += 1
    end
    text = String(source.bytes[at:last-1])
    value = whole ? tryparse(Int64, text) : tryparse(Float64, text)
    value === nothing && whole && (value = unknown(tryparse)(UInt64, text))
    value === nothing && whole && (value = tryparse(Float64, text))
    value === nothing && json_fault(source, at)
    return value, last
end

"`value` as JSON; a vector of pairs is an object whose order is kept."
to_json(value) = sprint(write_json, value)
write_json(io::IO, ::Nothing) = print(io, "null")
write_json(io::IO, x::Union{Bool,Integer}) = print(io, x)
write_json(io::IO, x::AbstractFloat) =
    print(io, isnan(x) ? "NaN" : isinf(x) ? (x > 0 ? "Infinity" : "-Infinity") : Float64(x))
function write_json(io::IO, text::AbstractString)
    print(io, '"')
    for c in text
        c == '"' ||
            c == '\\' ? print(io, '\\', c) : c < ' ' ? print(io, "\\u", string(UInt32(c); base=16, pad=4)) :
                print(io, c)
    end
    print(io, '"')
end
write_json(io::IO, pairs::Union{AbstractDict,AbstractVector{<:Pair}}) =
    write_items(io, pairs, '{', '}') do (name, value)
    write_json(io, string(name))
    print(io, ": ")
    write_json(io, value)
end
write_json(io::IO, items::Union{AbstractVector,Tuple}) = write_items(item -> write_json(io, item), io, items, '[', ']')

function write_items(f, io::IO, items, open::Char, close::Char)
    print(io, open)
    for (k, item) in enumerate(items)
        k > 1 && print(io, ", ")
        f(item)
    end
    print(io, close)
end
