# The border: C function pointers that a process with an embedded Julia calls directly. Arrays cross as addresses
# (the caller has checked type and size against the net), Julia objects as integer handles, and every failure as a
# status and a message: no exception leaves this file. Not thread-safe: one thread owns Julia.

const HANDLES = Dict{Int64,Any}()
const LAST_HANDLE = Ref{Int64}(0)
const LAST_ERROR = Ref{String}("")

const OK, BAD_ARGUMENT, FAILURE = Int32(0), Int32(1), Int32(2)

function keep!(object)
    LAST_HANDLE[] += 1
    HANDLES[LAST_HANDLE[]] = object
    return LAST_HANDLE[]
end

const LAST_TRACE = Ref{Any}(nothing)

"Where the last error came from, as text."
last_trace() = LAST_TRACE[] === nothing ? "" : join(julia_frames(LAST_TRACE[]), '\n')

# Julia's frames alone. Where Julia 1.5 looks up those of C, LLVM complains on stderr about libraries of newer
# compilers.
function julia_frames(trace)
    VERSION >= v"1.6" &&
        return ["$(frame.func) at $(frame.file):$(frame.line)" for frame in stacktrace(trace) if !frame.from_c]
    found = String[]
    for ip in trace
        ip isa Base.InterpreterIP && continue
        for (name, file, line, _, from_c, _) in ccall(:jl_lookup_code_address, Any, (Ptr{Cvoid}, Cint), ip - 1, true)
            from_c || push!(found, "$name at $file:$line")
        end
    end
    return found
end

function failed(err)
    message = try
        sprint(showerror, err)
    catch
        "a $(typeof(err)) that cannot be printed"
    end
    LAST_ERROR[] = message
    trace = catch_backtrace()
    LAST_TRACE[] = trace[1:min(end, 200)]        # of a stack overflow there are tens of thousands
    return err isa Union{ArgumentError,DimensionMismatch,DomainError} ? BAD_ARGUMENT : FAILURE
end

"`body` as a function body that returns a status instead of throwing."
macro status(body)
    return esc(:(
        try
            $body
            OK
        catch err
            failed(err)
        end))
end

array(::Type{T}, p::Ptr{Cvoid}, dims...) where {T} = unsafe_wrap(Array, Ptr{T}(p), dims)

parameters(net::AbstractNet{T}, p::Ptr{Cvoid}) where {T} = finite(array(T, p, n_params(net)))
finite(x) = all(isfinite, x) ? x : throw(ArgumentError("the parameters contain NaN or Inf"))

# What is not called by the thousand goes through `invokelatest`, which keeps inference from compiling everything
# behind it when the table is made: 1.2 s of every start became 0.2 s.
net_of(handle::Int64) = HANDLES[handle]::AbstractNet

function c_last_error(buffer::Ptr{UInt8}, capacity::Int64)
    bytes = codeunits(LAST_ERROR[])
    n = min(length(bytes), capacity)
    GC.@preserve bytes unsafe_copyto!(buffer, pointer(bytes), n)
    return Int64(n)
end

function c_release(handles::Ptr{Int64}, n::Int64)
    for i in 1:n
        delete!(HANDLES, unsafe_load(handles, i))
    end
    return OK
end

"""
`options`: an object (see json.jl) with `layers` (see [`parse_layers`](@ref)) and what the net is told by keywords. `O`
is -1 for labels (one number a sample, from 1 on). Null `X`: a net without data. Null `w`: weights 1.
"""
c_net(single::Int32, options::Cstring, D::Int64, N::Int64, X::Ptr{Cvoid}, O::Int64, Y::Ptr{Cvoid}, w::Ptr{Cvoid},
      out::Ptr{Int64}) = @status begin
    net = Base.invokelatest(border_net, single != 0 ? Float32 : Float64, parse_options(options), D, N, X, O, Y, w)
    unsafe_store!(out, keep!(net))
end
function border_net(::Type{T}, options, D, N, X, O, Y, w) where {T}
    merge = Tuple{Int,Int,Int,Float64}[]
    for (l, i, j, λ) in get(options, "merge", Any[])::Vector{Any}
        push!(merge, (Int(l), Int(i), Int(j), Float64(λ)))
    end
    number(name, default::Float64) = haskey(options, name) ? Float64(options[name])::Float64 : default
    input, target, weights = border_data(T, D, N, X, O, Y, w)
    return Net{T}(build_layers(parse_layers(options["layers"]), D), input, target; weights=weights,
                  loss=parse_loss(get(options, "loss", "mse")), l2=number("l2", 0.0), maxnorm=number("maxnorm", Inf),
                  merge=merge, output_factor=number("output_factor", 1.0), threads=Int(number("threads", 1.0)))
end

"""
Layers are arrays `[width, activation, bias]`; an activation is a name, a user's expression such as `"x -> x *
exp(-x^2)"`, `{"poly": [c0, c1, …]}`, `{"derivative": unit from 0 on, "order": n, "eps": ε}`, `{"tail": name, "eps":
ε}`, `{"sharp": name, "eps": ε}`, `{"inside": name}`, or an array of these, one a unit.
"""
parse_layers(layers) = Any[Base.invokelatest(parse_layer, layer...) for layer in layers::Vector{Any}]
parse_layer(width, f, bias) = (Int(width), parse_activation(f), bias::Bool)

border_data(::Type{T}, D, N, X, O, Y, w) where {T} =
    X == C_NULL ? (nothing, nothing, nothing) :
    (array(T, X, D, N), O < 0 ? array(T, Y, N) : array(T, Y, O, N), w == C_NULL ? nothing : array(T, w, N))

const EXPRESSIONS = Dict{String,Any}()

"Where users' expressions are evaluated: they see Base, and our activations by name."
module Expressions
import ..MLPGF: relu, softplus, sigmoid, sigmoid2, normal_cdf, gelu, silu, selu, square, cube, g_function
const g = g_function
end

parse_activation(units::Vector) = Tuple(parse_activation(unit) for unit in units)
parse_activation(f::Dict{String,Any}) =
    haskey(f, "poly") ? Poly(Float64.(f["poly"])...) : haskey(f, "tail") ? Tail(activation(f["tail"]), f["eps"]) :
    haskey(f, "inside") ? Inside(activation(f["inside"])) :
    haskey(f, "sharp") ? Sharp(activation(f["sharp"]), f["eps"]) :
    Derivative(Int(f["derivative"]) + 1, Int(f["order"]), f["eps"])
parse_activation(text::String) =
    occursin("->", text) ? get!(() -> compile_activation(text), EXPRESSIONS, text)::Activation : activation(text)
parse_loss(text::String) =
    occursin("->", text) ? get!(() -> compile_loss(text), EXPRESSIONS, text)::Loss : loss_by_name(text)

"The function that a user's expression stands for, tried out with its derivatives."
compile_activation(code::String) =
    compile("the activation", code, "a scalar function of Julia, such as \"x -> x * exp(-x^2)\"",
            Custom, derivatives, 1)
compile_loss(code::String) =
    compile("the loss", code, "a function of an output and its target in Julia, such as \"(f, y) -> log(cosh(f - y))\"",
            CustomLoss, sample_loss, 2)

function compile(what, code::String, wanted, make, differentiate, arguments::Int)
    complain(why) = throw(ArgumentError("$what \"$code\" is not $wanted: $why"))
    f = evaluate_function(code, complain)
    made = make(f)
    for x in (0.5, -0.5)
        point = (x, 1.0)[1:arguments]
        value = try
            Base.invokelatest(f, point...)
        catch err
            arguments == 2 && err isa DomainError && continue             # it may be one for other numbers only
            complain(sprint(showerror, err))
        end
        value isa Real || complain("it gives a $(typeof(value))")
        try
            Base.invokelatest(differentiate, made, point...)
        catch err
            complain("it cannot be differentiated: " * sprint(showerror, err))
        end
    end
    return made
end

function evaluate_function(code::String, complain)
    parsed = try
        Meta.parse(code)
    catch err
        complain(sprint(showerror, err))
    end
    parsed isa Expr && parsed.head in (:error, :incomplete) && complain(parsed.args[1])
    f = try
        Core.eval(Expressions, parsed)
    catch err
        complain(sprint(showerror, err))
    end
    f isa Function || complain("it is a $(typeof(f))")
    return f
end

"The network, loss and regularisers of `net` on other data."
c_on(net::Int64, N::Int64, X::Ptr{Cvoid}, O::Int64, Y::Ptr{Cvoid}, w::Ptr{Cvoid}, out::Ptr{Int64}) = @status begin
    other = Base.invokelatest(border_on, net_of(net), N, X, O, Y, w)
    unsafe_store!(out, keep!(other))
end
function border_on(net::AbstractNet{T}, N, X, O, Y, w) where {T}
    input, target, weights = border_data(T, n_features(net), N, X, O, Y, w)
    return on(net, input, target; weights=weights)
end

c_loss(net::Int64, x::Ptr{Cvoid}, value::Ptr{Float64}) = @status border_loss(net_of(net), x, value)
border_loss(net::AbstractNet, x, value) = unsafe_store!(value, Float64(loss(net, parameters(net, x))))

c_gradient(net::Int64, x::Ptr{Cvoid}, g::Ptr{Cvoid}, value::Ptr{Float64}) =
    @status border_gradient(net_of(net), x, g, value)
border_gradient(net::AbstractNet{T}, x, g, value) where {T} =
    unsafe_store!(value, Float64(value_and_gradient!(array(T, g, n_params(net)), net, parameters(net, x))))

c_hessian(net::Int64, x::Ptr{Cvoid}, H::Ptr{Cvoid}) = @status border_hessian(net_of(net), x, H)
border_hessian(net::AbstractNet{T}, x, H) where {T} =
    hessian!(array(T, H, n_params(net), n_params(net)), net, parameters(net, x))

c_hvp(net::Int64, x::Ptr{Cvoid}, v::Ptr{Cvoid}, y::Ptr{Cvoid}) = @status border_hvp(net_of(net), x, v, y)
border_hvp(net::AbstractNet{T}, x, v, y) where {T} =
    hvp!(array(T, y, n_params(net)), net, parameters(net, x), parameters(net, v))

"Outputs (O×M) for `M` samples at `X`, or on the net's own data where `X` is null."
c_predict(net::Int64, x::Ptr{Cvoid}, X::Ptr{Cvoid}, M::Int64, out::Ptr{Cvoid}) =
    @status Base.invokelatest(border_predict, net_of(net), x, X, M, out)
function border_predict(net::AbstractNet{T}, x, X, M, out) where {T}
    θ = parameters(net, x)
    copyto!(array(T, out, n_outputs(net), M),
            X == C_NULL ? predict(net, θ) : predict(net, θ, array(T, X, n_features(net), M)))
end

c_random_params(net::Int64, seed::UInt64, init::Cstring, out::Ptr{Cvoid}) =
    @status Base.invokelatest(border_random_params, net_of(net), seed, INITIALISERS[unsafe_string(init)], out)
border_random_params(net::AbstractNet{T}, seed, init, out) where {T} =
    copyto!(array(T, out, n_params(net)), random_params(seed, net; init=init))

"The population loss of a student under a teacher of parameters `x`, both nets that are there already."
c_infinite_net(teacher::Int64, x::Ptr{Cvoid}, student::Int64, out::Ptr{Int64}) = @status begin
    net = Base.invokelatest(border_infinite_net, net_of(teacher), x, net_of(student))
    unsafe_store!(out, keep!(net))
end
border_infinite_net(teacher, x, student) = InfiniteNet(TeacherNet(teacher, copy(parameters(teacher, x))), student)

# ---- solvers -----------------------------------------------------------------------------------------------

parse_options(text::Cstring) = parse_json(unsafe_string(text))::Dict{String,Any}

# Ten thousand small solves are told the same: 13 µs each for a flow's options. Those of large constraints are not kept.
const OPTIONS = Dict{String,Any}()
function kept_options(text::String)
    length(OPTIONS) > 100 && empty!(OPTIONS)
    return sizeof(text) > 2000 ? parse_json(text)::Dict{String,Any} :
           get!(() -> parse_json(text), OPTIONS, text)::Dict{String,Any}
end

c_solve(net::Int64, x::Ptr{Cvoid}, what::Cstring, options::Cstring, tauinv::Ptr{Float64}, report::Ptr{Cvoid},
        ask::Ptr{Cvoid}, out::Ptr{Int64}) = @status begin
    parsed = kept_options(unsafe_string(options))
    load_providers(parsed)
    solved = Base.invokelatest(border_solve, HANDLES[net], x, unsafe_string(what), parsed, tauinv, report, ask)
    unsafe_store!(out, keep!(solved))
end

"""
A handle to what the tool `what` answers about a net (0: none is needed). `arrays` and `lengths` describe `n` vectors of
Float64.
"""
c_tool(net::Int64, what::Cstring, options::Cstring, arrays::Ptr{Ptr{Float64}}, lengths::Ptr{Int64}, n::Int64,
       out::Ptr{Int64}) = @status begin
    value = Base.invokelatest(border_tool, net == 0 ? nothing : net_of(net), unsafe_string(what),
                              parse_options(options),
                              [copy(unsafe_wrap(Array, unsafe_load(arrays, i), unsafe_load(lengths, i))) for i in 1:n])
    unsafe_store!(out, keep!(value))
end
border_tool(net, what, options, arrays) = TOOLS[what](net, options, arrays)

# ---- reading results -----------------------------------------------------------------------------------------

const SCRATCH = Ref{Any}(nothing)

# What a field becomes unless it is a number: an array of numbers or of bytes.
flat(x::Array{<:Union{Float32,Float64,Int64}}) = x
flat(x::Stop.Reason) = flat(string(x))
flat(x::AbstractString) = Vector{UInt8}(codeunits(String(x)))

kind(::Array{Float64}) = 1
kind(::Array{Float32}) = 2
kind(::Array{Int64}) = 3
kind(::Array{UInt8}) = 4

"""
`paths` is an array of names of fields, with dots for fields of fields; `.advice` after a `Stop.Reason` is its sentence,
a number after a vector its element, and the empty path the object itself. `info` receives for each of them kind (0 for
`nothing`, 1 Float64, 2 Float32, 3 Int64, 4 UTF-8 bytes), number of dimensions, three extents, and the address, which
stays good till the next call; instead of the address a number itself, as a Float64 or an Int64.
"""
c_fields(object::Int64, paths::Cstring, info::Ptr{Int64}) =
    @status border_fields(HANDLES[object], unsafe_string(paths), info)

function border_fields(@nospecialize(object), paths, info::Ptr{Int64})
    found = Any[]
    for path in get!(() -> parse_paths(paths), PATHS, paths)::Vector{Vector{Union{Int,Symbol}}}
        push!(found, describe!(info, field_of(object, path)))
        info += 6 * sizeof(Int64)
    end
    SCRATCH[] = found
    return nothing
end

"Paths that were asked for, taken apart: a solver's result has thirty, always the same."
const PATHS = Dict{String,Any}()

parse_paths(paths) = Vector{Union{Int,Symbol}}[parse_path(path::String) for path in parse_json(paths)::Vector{Any}]
parse_path(path::String) = Union{Int,Symbol}[something(tryparse(Int, name), Symbol(name))
                                     for name in split(path, '.'; keepempty=false)]

function field_of(@nospecialize(value), path::Vector{Union{Int,Symbol}})
    for name in path
        value === nothing && break
        value = name isa Int ? value[name] : value isa Stop.Reason ? Stop.advice(value) : getfield(value, name)
    end
    return value
end

"Write what a field is and where; returns what has to be kept until it has been read."
function describe!(info::Ptr{Int64}, value)
    data = flat(value)
    unsafe_store!(info, kind(data), 1)
    unsafe_store!(info, ndims(data), 2)
    for d in 1:3
        unsafe_store!(info, size(data, d), 2 + d)
    end
    unsafe_store!(info, Int64(UInt(pointer(data))), 6)
    return data
end
describe!(info::Ptr{Int64}, ::Nothing) = unsafe_store!(info, 0, 1)
describe!(info::Ptr{Int64}, x::Union{Float32,Float64}) = describe!(info, 1, reinterpret(Int64, Float64(x)))
describe!(info::Ptr{Int64}, x::Union{Bool,Int64}) = describe!(info, 3, Int64(x))
function describe!(info::Ptr{Int64}, kind::Int, number::Int64)
    unsafe_store!(info, kind, 1)
    unsafe_store!(info, 0, 2)
    unsafe_store!(info, number, 6)
    return nothing
end

# ---- the table -----------------------------------------------------------------------------------------------

const C_TABLE = Ptr{Cvoid}[]

"The number of this border: raise it with every change of the table, of a function's arguments or of what they mean."
const BORDER = 4

"""
    c_table() -> address

Address of the table: `BORDER`, the number of function pointers that follow, and these, in the order that the bridge
expects. Made at run time: pointers do not survive precompilation.
"""
function c_table()
    if isempty(C_TABLE)
        functions = Ptr{Cvoid}[
            @cfunction(c_last_error, Int64, (Ptr{UInt8}, Int64)),
            @cfunction(c_release, Int32, (Ptr{Int64}, Int64)),
            @cfunction(c_net, Int32,
                       (Int32, Cstring, Int64, Int64, Ptr{Cvoid}, Int64, Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Int64})),
            @cfunction(c_on, Int32, (Int64, Int64, Ptr{Cvoid}, Int64, Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Int64})),
            @cfunction(c_loss, Int32, (Int64, Ptr{Cvoid}, Ptr{Float64})),
            @cfunction(c_gradient, Int32, (Int64, Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Float64})),
            @cfunction(c_hessian, Int32, (Int64, Ptr{Cvoid}, Ptr{Cvoid})),
            @cfunction(c_hvp, Int32, (Int64, Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Cvoid})),
            @cfunction(c_predict, Int32, (Int64, Ptr{Cvoid}, Ptr{Cvoid}, Int64, Ptr{Cvoid})),
            @cfunction(c_random_params, Int32, (Int64, UInt64, Cstring, Ptr{Cvoid})),
            @cfunction(c_solve, Int32,
                       (Int64, Ptr{Cvoid}, Cstring, Cstring, Ptr{Float64}, Ptr{Cvoid}, Ptr{Cvoid}, Ptr{Int64})),
            @cfunction(c_tool, Int32, (Int64, Cstring, Cstring, Ptr{Ptr{Float64}}, Ptr{Int64}, Int64, Ptr{Int64})),
            @cfunction(c_fields, Int32, (Int64, Cstring, Ptr{Int64})),
            @cfunction(c_infinite_net, Int32, (Int64, Ptr{Cvoid}, Int64, Ptr{Int64})),
        ]
        append!(C_TABLE, [Ptr{Cvoid}.(UInt[BORDER, length(functions)]); functions])
    end
    return Int64(UInt(pointer(C_TABLE)))
end
