# What users choose by name. Each file registers what it defines at its foot; lists, tables and checks are derived.

"""
    unknown(f)

`f`, but the compiler does not know: where a call is dynamic all the same, or seldom made, it need not look into every
method that may be meant. A process without a system image compiles what it calls, and no more: 5 s to its first flow
instead of 14. Compiled code would depend on all of these methods, and be compiled again where a package that is loaded
before adds a method to one that they call. Structs that are not mutable, and numbers but small integers, are allocated
when they are handed over.
"""
unknown(f) = Base.inferencebarrier(f)

"""
One thing with a name: the `value` that the name stands for, what it is in a line, its P×P matrices, and when to choose
it.
"""
struct Entry
    value::Any
    summary::String
    matrices::Int
    when::String
end

"Names and what they stand for, in the order in which the files are included."
struct Registry
    kind::String
    names::Vector{String}
    entries::Dict{String,Entry}
end
Registry(kind::String) = Registry(kind, String[], Dict{String,Entry}())

"""
    register!(registry, name, value, summary; matrices = 0, when = "") -> value

Let users call `value` by `name`. `summary` says what it is in one line; `matrices` are the P×P matrices that it keeps,
by which runs that no memory holds are refused; `when` advises whom it suits, for the page on choosing a solver.
"""
function register!(registry::Registry, name::String, @nospecialize(value), summary::String; matrices::Int=0,
                   when::String="")
    haskey(registry.entries, name) && error("there are two $(registry.kind)s called \"$name\"")
    push!(registry.names, name)
    registry.entries[name] = Entry(value, summary, matrices, when)
    return value
end

Base.haskey(registry::Registry, name) = haskey(registry.entries, name)
Base.getindex(registry::Registry, name) = registry.entries[name].value
Base.keys(registry::Registry) = registry.names
Base.iterate(registry::Registry, state...) =
    iterate((name => registry[name] for name in registry.names), state...)
Base.length(registry::Registry) = length(registry.names)
Base.IteratorSize(::Type{Registry}) = Base.HasLength()

"The value called `name`, or an error that lists the names there are."
function lookup(registry::Registry, name)
    haskey(registry, name) && return registry[name]
    throw(ArgumentError("unknown $(registry.kind) \"$name\"; known are $(join(sort(registry.names), ", "))"))
end
