# Explicit Runge–Kutta pairs whose last stage is the first of the next step: a method is a tableau, the loop is here.

"""
An explicit method with an embedded estimate of its error, whose last stage is the gradient at the new point. It
implements [`tableau`](@ref) and nothing else.
"""
abstract type ExplicitPair <: FlowMethod end

"""
    Tableau{T}(name, a, error, interpolant, order, stable, growth)

For s stages: the rows of `a` after the first, s - 1 of them, the last being the weights of the solution; `error`, s
weights of solution minus embedded solution; `interpolant`, an s × d matrix, so that y(θ) = y − h Σᵢ Σₘ rᵢₘ θᵐ kᵢ for θ
from 0 to 1; the `order` of the solution; `stable`, the longest step times curvature that is taken on the negative axis;
`growth`, how much the rate of a mode that grows as e^z is off, in units of z^order.
"""
struct Tableau{T<:AbstractFloat}
    name::String
    a::Vector{Vector{T}}
    error::Vector{T}
    interpolant::Matrix{T}
    order::Int
    stable::Float64
    growth::Float64
end

"""
    tableau(method, T) -> Tableau{T}

What an [`ExplicitPair`](@ref) is.
"""
function tableau end

"""
The interpolant of a pair that has none of its own: cubic Hermite polynomials from both ends, `weights` the solution's.
"""
function hermite_interpolant(weights::Vector{T}) where {T}
    s = length(weights) + 1
    r = zeros(T, s, 3)
    for i in 1:s-1
        r[i, 2], r[i, 3] = 3 * weights[i], -2 * weights[i]
    end
    r[1, :] .+= T[1, -2, 1]
    r[s, :] .+= T[0, -1, 1]
    return r
end

mutable struct ExplicitCache{T<:AbstractFloat} <: StepCache{T}
    tableau::Tableau{T}
    k::Vector{Vector{T}}     # gradients of the stages
    before::Vector{T}        # the stage before the solution, for the estimate of stiffness
    curvature::Float64       # the largest seen lately
end

make_state(method::ExplicitPair, ::Type{T}, n::Int) where {T} = ExplicitCache{T}(tableau(method, T), n)
ExplicitCache{T}(t::Tableau{T}, n::Int) where {T} =
    ExplicitCache{T}(t, Vector{T}[zeros(T, n) for _ in t.error], zeros(T, n), 0.0)

method_name(cache::ExplicitCache) = cache.tableau.name
controller(cache::ExplicitCache) = Controller(false, cache.tableau.order)
interpolant_degree(cache::ExplicitCache) = size(cache.tableau.interpolant, 2)

# Errors of a component below abstol are not seen by the error norm, yet they decide when a saddle is left.
escape_limit(cache::ExplicitCache, reltol::Float64) =
    clamp((reltol / cache.tableau.growth)^(1 / cache.tableau.order), 0.05, 1.5)
watch_escape(::ExplicitCache) = true

function step!(cache::ExplicitCache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    k, y, a = cache.k, state.y, cache.tableau.a
    minus_h = -T(min(state.h, Float64(floatmax(T)) / 1e3))
    copyto!(k[1], state.g)
    last = length(k)
    for stage in 2:last-1
        target = stage == last - 1 ? cache.before : state.ynew
        combine!(target, y, minus_h, a[stage-1], k, stage - 1)
        gradient_at!(k[stage], problem, target)
    end
    combine!(state.ynew, y, minus_h, a[last-1], k, last - 1)
    value_and_gradient_at!(k[last], problem, state.ynew)
    state.lossnew = problem.value[]
    state.gnormnew = problem.gnorm
    state.evaluated = true
    copyto!(state.gnew, k[last])
    fill!(state.err, zero(T))
    for j in 1:last
        add_scaled!(state.err, minus_h * cache.tableau.error[j], k[j])
    end
    return true
end

# Curvature is measured between the last two stages, which should lie at the same time, or nearly so (Hairer and Wanner,
# Solving ODEs II, IV.2). It shows the stiffest direction only while that is excited: hence the memory.
function measure!(cache::ExplicitCache{T}, state::FlowState{T}) where {T}
    rise, run = zero(T), zero(T)
    last = length(cache.k)
    y0, k0, k1, ynew = cache.before, cache.k[last-1], cache.k[last], state.ynew
    @inbounds @simd for i in eachindex(y0)
        rise += (k1[i] - k0[i])^2
        run += (ynew[i] - y0[i])^2
    end
    curvature = run > 0 ? sqrt(Float64(rise / run)) : 0.0
    isfinite(curvature) && (cache.curvature = max(curvature, 0.99 * cache.curvature))
    state.stiffness = state.h * cache.curvature
    state.longest = cache.tableau.stable / cache.curvature
    return nothing
end

function interpolant!(c::Vector{T}, offset::Int, cache::ExplicitCache{T}, problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    n, r = problem.n, cache.tableau.interpolant
    minus_h = -T(min(state.h, Float64(floatmax(T)) / 1e3))
    copyto!(c, offset + 1, state.y, 1, n)
    for m in axes(r, 2)
        at = offset + m * n
        for i in 1:n
            c[at+i] = 0
        end
        for j in axes(r, 1)
            weight = minus_h * r[j, m]
            kj = cache.k[j]
            @inbounds @simd for i in 1:n
                c[at+i] += weight * kj[i]
            end
        end
    end
    return nothing
end
