"""
    LowestPoint{T}

The point `x` of lowest `loss` of a descent, and ‖∇L‖_∞ there as `gnorm`.
"""
struct LowestPoint{T<:AbstractFloat}
    x::Vector{T}
    loss::T
    gnorm::Float64
end

"""
    FlowResult{T}

What [`flow`](@ref) found.

- `x`, `loss`, `gnorm`, `t`: the last accepted point, its loss, ‖∇L‖_∞ of the parameters that move, its time
- `stopped_by`: a `Stop.Reason`; `alg`: the methods that ran, as in "Tsit5" or "Tsit5+Rodas5P"
- `iterations`, `rejected`: accepted and rejected steps; `nfev`, `nhev`: gradients and Hessians; `time_run`:
  seconds; `nhvp`: Hessian-vector products
- `trajectory`: a [`Trajectory`](@ref); `sol`: a [`DenseSolution`](@ref) or `nothing`
- `best`: of a discrete method, whose loss may rise, the [`LowestPoint`](@ref); of a flow `nothing`, as it is the last
- `memory`: of a discrete method that a limit ended, what it needs to go on (see [`FlowOptions`](@ref))
"""
Base.@kwdef struct FlowResult{T<:AbstractFloat}
    x::Vector{T}
    loss::T
    gnorm::Float64
    t::Float64
    stopped_by::Stop.Reason
    iterations::Int
    rejected::Int = 0
    nfev::Int
    nhev::Int = 0
    nhvp::Int = 0
    time_run::Float64
    alg::String
    trajectory::Trajectory{T}
    sol::Union{Nothing,DenseSolution{T}} = nothing
    best::Union{Nothing,LowestPoint{T}} = nothing
    memory::Union{Nothing,Vector{Float64}} = nothing
end

lifted(r::FlowResult, C::Constraint) =
    changed(r; x=embed(C, r.x), trajectory=lifted(r.trajectory, C), sol=lifted(r.sol, C), best=lifted(r.best, C))
lifted(::Nothing, ::Constraint) = nothing
lifted(p::LowestPoint{T}, C::Constraint{T}) where {T} = LowestPoint{T}(embed(C, p.x), p.loss, p.gnorm)

Base.show(io::IO, r::FlowResult) =
    print(io, "FlowResult(loss = ", r.loss, ", gnorm = ", r.gnorm, ", t = ", r.t, ", ", r.stopped_by,
          " after ", r.iterations, " steps of ", r.alg, ")")

"""
    flow(net, x0; monitor = Monitor(), options...) -> FlowResult

Integrate dx/dt = -tauinv ∘ ∇L(x) from `x0` (P numbers, left as they are) at t = 0 to `maxT`. `options` are those of
[`FlowOptions`](@ref); the `monitor` is polled at every step.

Where activations have kinks, as relu has, steps end at kinks and the flow slides along those that it points to from
both sides (Filippov). The gradient there, whose norm is recorded and compared with `min_gnorm`, is the convex
combination of both sides' that is tangential to the kink, not that of one side, which [`gradient`](@ref) gives.

The flow also ends, with `Stop.roundoff`, when loss and gradient cannot be lowered any more in this number
type, and with `Stop.diverged` when no step leads to finite numbers.

# Example
    res = flow(net, x0; maxT = 1e4)
    res.x, res.loss, res.stopped_by
"""
flow(net::AbstractNet, x0::AbstractVector; monitor::Monitor=Monitor(), options...) =
    flow(net, x0, FlowOptions(; options...), monitor)

function flow(net::AbstractNet{T}, x0::AbstractVector, options::FlowOptions, monitor::Monitor) where {T}
    length(x0) == n_params(net) ||
        throw(DimensionMismatch("x0 has length $(length(x0)), the net has $(n_params(net)) parameters."))
    o = options
    # One by one: code that compares numbers of any type is compiled again where a package has numbers of its own.
    check_setting("maxT", o.maxT, o.maxT >= 0)
    check_setting("maxtime", o.maxtime, o.maxtime >= 0)
    check_setting("maxiterations", o.maxiterations, o.maxiterations >= 0)
    samples = o.n_samples_trajectory
    samples === nothing || check_setting("n_samples_trajectory", samples, samples >= 0)
    check_setting("abstol", o.abstol, 0 <= o.abstol < Inf)
    check_setting("reltol", o.reltol, 0 <= o.reltol < Inf)
    allowed_rates(o.tauinv)::Bool || throw(ArgumentError("tauinv must be finite and not negative."))
    o.tauinv isa Real || length(o.tauinv) == length(x0) ||
        throw(DimensionMismatch("tauinv has length $(length(o.tauinv)), the net has $(length(x0)) parameters."))
    o.dt === nothing || check_setting("dt", o.dt, 0 < o.dt < Inf)
    start = convert(Vector{T}, x0)
    alg = flow_method(o.alg)::FlowMethod
    for (name, f) in o.observables         # one that fails does so before the work is done
        f(copy(start)) isa Union{Real,Vector{<:Real}} ||
            throw(ArgumentError("the observable $name must return a real number, or a vector of them."))
    end
    o.constraint === nothing && all_positive(T, o.tauinv)::Bool ||
        return Base.invokelatest(constrained_flow, net, start, o, monitor)::FlowResult{T}
    alg isa DiscreteMethod || o.batchsize === nothing || (alg = BatchFlow(alg, o))
    alg isa DiscreteMethod && return Base.invokelatest(discrete_flow, net, alg, start, o, monitor)::FlowResult{T}
    problem = FlowProblem(net, o.tauinv)
    state = FlowState(problem, max(o.abstol, Float64(max(floatmin(T), T(1e-30)))), max(o.reltol, 10 * Float64(eps(T))))
    return watching(() -> integrate(problem, state, start, alg, o, monitor), net, monitor)
end

function discrete_flow(net::AbstractNet, alg, start::Vector, o::FlowOptions, monitor::Monitor)
    o.dense && throw(ArgumentError("a discrete method, or a flow on batches, has no dense output"))
    descent = Descent(net, alg, start, o)
    return watching(() -> descend(descent, alg, o, monitor), net, monitor)
end

"The flow of a net some of whose parameters are held."
function constrained_flow(net::AbstractNet, x::Vector, o::FlowOptions, monitor::Monitor)
    constraint, rates = motion(o.constraint, o.tauinv, x)
    return within(net, constraint, x, monitor) do inner, z
        C = inner.constraint
        flow(inner, z, changed(o; constraint=nothing, tauinv=rates, event=on_coordinates(o.event, C),
                               observables=[name => z -> f(embed(C, z)) for (name, f) in o.observables]), monitor)
    end
end

"""
    motion(constraint, tauinv, x) -> constraint, rates

The constraint of a flow from `x` in which parameters whose inverse time constant is zero keep their values, and the
inverse time constants of its coordinates.
"""
function motion(constraint, tauinv, x::Vector{T}) where {T}
    C = constraint === nothing ? unconstrained(T, length(x)) : Constraint{T}(constraint)
    rates = T[tauinv isa Real ? tauinv : rate(C, j, tauinv) for j in 1:n_coordinates(C)]
    free = findall(>(0), rates)
    return hold(C, free, coordinates(C, x)), rates[free]
end

"The inverse time constant of a coordinate: that of all parameters that it drives."
function rate(C::Constraint, j::Int, tauinv)
    i = C.rows[first(column(C, j))]
    for k in column(C, j)
        tauinv[C.rows[k]] == tauinv[i] || throw(ArgumentError(
            "tauinv is $(tauinv[i]) for parameter $i and $(tauinv[C.rows[k]]) for parameter $(C.rows[k]) (of 1 to " *
            "$(n_params(C))), which the constraint moves together: give both the same"))
    end
    return tauinv[i]
end

"An event, which knows θ, as a function of z."
function on_coordinates(event, C::Constraint{T}) where {T}
    applicable(event, 0.0, C.c, zero(T), 0.0) && return (t, z, loss, gnorm) -> event(t, embed(C, z), loss, gnorm)
    applicable(event, 0.0, C.c) && return (t, z) -> event(t, embed(C, z))
    return event
end

allowed_rates(tauinv::Real) = 0 <= tauinv < Inf
allowed_rates(tauinv) = all(allowed_rates, tauinv)
all_positive(::Type{T}, τ::Real) where {T} = T(τ)::T > 0
all_positive(::Type{T}, τ) where {T} = all(T(t)::T > 0 for t in τ)

check_setting(name, @nospecialize(value), good) = good ? nothing : Base.invokelatest(refuse_setting, name, value)
refuse_setting(name, value) = throw(ArgumentError("$name = $value is not allowed: it must not be negative or NaN."))
