# What every minimizer shares: the counted objective, the options, the trace and the result.

"""
    MinimizeMethod

A method of [`minimize`](@ref). It implements [`make_state`](@ref), [`step!`](@ref) and [`method_name`](@ref), and
where the defaults do not fit

- `settle!(state, objective, method)`: a step shortly before a limit; methods whose points stray from the floor of a
  valley return to it.
- `at_saddle!(state, objective)`: is the Hessian at the point clearly indefinite? Asked where the gradient alone would
  end the search; a method without a Hessian does not know.
- `settled!(state)`: does a method that ended by rounding know from its Hessian that the minimum is a point?
- `yields(state)`: is the rest left to another method?
"""
abstract type MinimizeMethod end

settle!(state, objective, method) = step!(state, objective, method)
at_saddle!(state, objective) = false
settled!(state) = false
yields(state) = false

"The methods by name: each file of `methods/` registers its own."
const MINIMIZE_METHODS = Registry("optim_solver")

"A net whose evaluations are counted."
mutable struct Objective{T<:AbstractFloat,N<:AbstractNet{T}}
    net::N
    nfev::Int
    njev::Int
    nhev::Int
    nhvp::Int
end
Objective(net::N) where {T,N<:AbstractNet{T}} = Objective{T,N}(net, 0, 0, 0, 0)

"Loss and gradient; not a number where a loss or an activation of the user's own is not defined."
function evaluate!(g::Vector{T}, objective::Objective{T}, x::Vector{T})::T where {T}
    objective.nfev += 1
    objective.njev += 1
    try
        return value_and_gradient!(g, objective.net, x)
    catch err
        err isa DomainError || rethrow()
        fill!(g, T(NaN))
        return T(NaN)
    end
end

function evaluate_hessian!(H::Matrix{T}, objective::Objective{T}, x::Vector{T}) where {T}
    objective.nhev += 1
    hessian!(H, objective.net, x)
    return H
end

"`y ← ∇²L(x) v`."
function evaluate_product!(y::Vector{T}, objective::Objective{T}, x::Vector{T}, v::Vector{T}) where {T}
    objective.nhvp += 1
    hvp!(y, objective.net, x, v)
    return y
end

const TRACE_LENGTH = 512

"""
    MinimizeTrace

Iteration number, loss and ‖∇L‖_∞ along a run, in bounded memory: when `TRACE_LENGTH` entries are full
every second one is dropped, and from then on only every second, fourth, … iteration is kept.
"""
mutable struct MinimizeTrace
    iteration::Vector{Int}
    loss::Vector{Float64}
    gnorm::Vector{Float64}
    length::Int
    stride::Int
end
MinimizeTrace() = MinimizeTrace(zeros(Int, TRACE_LENGTH), zeros(TRACE_LENGTH), zeros(TRACE_LENGTH), 0, 1)

function record!(trace::MinimizeTrace, iteration::Int, loss::Real, gnorm::Real)
    iteration % trace.stride == 0 || return trace
    if trace.length == TRACE_LENGTH
        kept = 0
        trace.stride *= 2
        for i in 1:TRACE_LENGTH
            trace.iteration[i] % trace.stride == 0 || continue
            kept += 1
            trace.iteration[kept] = trace.iteration[i]
            trace.loss[kept] = trace.loss[i]
            trace.gnorm[kept] = trace.gnorm[i]
        end
        trace.length = kept
        iteration % trace.stride == 0 || return trace
    end
    i = trace.length += 1
    trace.iteration[i] = iteration
    trace.loss[i] = loss
    trace.gnorm[i] = gnorm
    return trace
end

"Close the trace with the last point, whatever the stride, and free what was not used."
function finish!(trace::MinimizeTrace, iteration::Int, loss::Real, gnorm::Real)
    if trace.length == 0 || trace.iteration[trace.length] != iteration
        trace.length == TRACE_LENGTH && (trace.length -= 1)
        i = trace.length += 1
        trace.iteration[i] = iteration
        trace.loss[i] = loss
        trace.gnorm[i] = gnorm
    end
    resize!(trace.iteration, trace.length)
    resize!(trace.loss, trace.length)
    resize!(trace.gnorm, trace.length)
    return trace
end

"The point `x0` with gradient, loss and ‖∇L‖_∞, where every method begins."
function first_point(objective::Objective{T}, x0::Vector{T}) where {T}
    gradient = zeros(T, length(x0))
    loss = evaluate!(gradient, objective, x0)
    return (x=copy(x0), gradient=gradient, loss=loss, gnorm=supnorm(gradient))
end

"""
    MinimizeResult

What [`minimize`](@ref) found: the best point `x`, its `loss` and `gnorm` = ‖∇L(x)‖_∞, why it ended
(`stopped_by::Stop.Reason`), `iterations`, the number of evaluations of the loss (`nfev`), its gradient
(`njev`), of Hessian or Gauss–Newton matrix (`nhev`) and of products with the Hessian (`nhvp`), `time_run` in seconds,
the name `optim_solver` of the method, a `trace` with fields `iteration`, `loss`, `gnorm`, and if a limit ended it and
it is not too large the `memory` that [`MinimizeOptions`](@ref) takes as `optim_memory`.
"""
Base.@kwdef struct MinimizeResult{T<:AbstractFloat}
    x::Vector{T}
    loss::T
    gnorm::T
    stopped_by::Stop.Reason
    iterations::Int
    nfev::Int
    njev::Int
    nhev::Int
    nhvp::Int
    time_run::Float64
    optim_solver::String
    trace::MinimizeTrace
    memory::Union{Nothing,Vector{Float64}} = nothing
end

lifted(r::MinimizeResult, C::Constraint) = changed(r; x=embed(C, r.x))

function Base.show(io::IO, r::MinimizeResult)
    print(io, "MinimizeResult(", r.optim_solver, ": loss = ", Float64(r.loss),
          ", ‖∇L‖_∞ = ", Float64(r.gnorm), ", ", r.iterations, " iterations, stopped by ", r.stopped_by, ")")
end

# Plain loops instead of broadcasts: they compile once per number type and in little time.

"Largest absolute component; NaN if any component is NaN."
function supnorm(v::Vector{T}) where {T}
    s = zero(T)
    @inbounds for i in eachindex(v)
        a = abs(v[i])
        (a > s || isnan(a)) && (s = a)
        isnan(s) && return s
    end
    return s
end

"A vector that is orthogonal to no eigenvector but by chance: golden-ratio points need no seed."
function fill_generic!(v::Vector{T}) where {T}
    for i in eachindex(v)
        v[i] = T(1//2) + T(mod(0.6180339887498949 * i, 1.0))
    end
    return v
end

function dot_product(a::Vector{T}, b::Vector{T}) where {T}
    s = zero(T)
    @inbounds @simd for i in eachindex(a)
        s += a[i] * b[i]
    end
    return s
end

"Euclidean norm, safe from overflow and underflow."
function two_norm(v::Vector{T}) where {T}
    m = supnorm(v)
    (iszero(m) || !isfinite(m)) && return m
    s = zero(T)
    @inbounds @simd for i in eachindex(v)
        s += abs2(v[i] / m)
    end
    return m * sqrt(s)
end

"`sum ← a + b`; false if rounding left `a` as it was."
function shift_by!(sum::Vector{T}, a::Vector{T}, b::Vector{T}) where {T}
    moved = false
    @inbounds for i in eachindex(a)
        sum[i] = a[i] + b[i]
        moved |= sum[i] != a[i]
    end
    return moved
end
