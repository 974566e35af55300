"""
    QNDF(; linsolve = :auto)

Numerical differentiation formulas of order 1 to 5 in backward differences, at a step that stays the same until another
order or step promises more: one to two gradients a step, a Hessian only when the old one makes Newton's method slow.
Where the last correction is believed without an evaluation, loss and gradient norm recorded at that point are those of
its quadratic model; with `save_everystep`, and at the end of the flow, they are always evaluated.

`linsolve`: `:cholesky` factors `I + γhH`, `:krylov` uses Hessian-vector products in memory proportional to P, `:auto`
the former for small nets and the latter for large ones.

L. F. Shampine and M. W. Reichelt, *The MATLAB ODE suite*, SIAM J. Sci. Comput. 18 (1997) 1–22.
"""
struct QNDF <: FlowMethod
    linsolve::Symbol
    QNDF(; linsolve::Symbol=:auto) = new(check_linsolve(linsolve))
end

const QNDF_ORDER = 5
# κ of the paper, γ_k = Σ 1/j, and the constant of the error, for the orders 1 to 5 (and 6, where only the last is
# used).
const QNDF_KAPPA = (-37 // 200, -1 // 9, -823 // 10_000, -83 // 2000, 0 // 1, 0 // 1)
const QNDF_GAMMA = (1 // 1, 3 // 2, 11 // 6, 25 // 12, 137 // 60, 49 // 20)
const QNDF_ERROR = ntuple(k -> QNDF_KAPPA[k] * QNDF_GAMMA[k] + 1 // (k + 1), 6)

mutable struct QNDFCache{T<:AbstractFloat,S<:ShiftedSystem{T}} <: StepCache{T}
    newton::StageNewton{T,S}
    # Backward differences ∇⁰y … ∇⁷y at the last accepted point for the step h, the last two as far as they are known.
    D::Vector{Vector{T}}
    spare::Vector{Vector{T}}
    b::Vector{T}
    prediction::Vector{T}
    change::Vector{T}        # ynew - prediction = ∇^(k+1) ynew
    basis::Matrix{T}         # column j: the polynomial of the j-th difference in powers of s
    gamma::Vector{T}
    order::Int
    equal::Int               # steps since order or step changed
    attempts::Int            # since the last accepted step
    h::Float64               # the step of the differences, zero before the first
    held::Bool               # an unstable direction has held the step down since it changed
end

function QNDFCache(alg::QNDF, ::Type{T}, n::Int) where {T}
    z() = zeros(T, n)
    # Π_{m<j} (s - 1 + m)/(m + 1), s from 0 at the last point to 1 at the new one
    basis = zeros(T, QNDF_ORDER + 1, QNDF_ORDER)
    factor = vcat(one(T), zeros(T, QNDF_ORDER))
    for j in 1:QNDF_ORDER
        shifted = vcat(zero(T), factor[1:end-1])
        factor = (shifted .+ T(j - 2) .* factor) ./ T(j)
        basis[:, j] = factor
    end
    system = shifted_system(T, n, alg.linsolve)
    return QNDFCache(StageNewton(system, T, n), Vector{T}[z() for _ in 0:QNDF_ORDER+2],
                     Vector{T}[z() for _ in 1:QNDF_ORDER],
                     z(), z(), z(), basis, T[T(γ) for γ in QNDF_GAMMA], 1, 0, 0, 0.0, false)
end

make_state(alg::QNDF, ::Type{T}, n::Int) where {T} = QNDFCache(alg, T, n)
method_name(cache::QNDFCache) = "QNDF" * name_suffix(cache.newton.system)
controller(::QNDFCache) = Controller(false, 2)
interpolant_degree(::QNDFCache) = QNDF_ORDER

# The growth along e^z is off by C_k z^k in its rate, k the order. At low orders, which only start a run, what counts is
# the error of the step rather than of the rate: else they would take as many steps as the tolerance has inverse.
function escape_limit(cache::QNDFCache, reltol::Float64)
    k, C = cache.order, Float64(QNDF_ERROR[cache.order])
    return clamp(max((reltol / C)^(1 / k), (0.1 * reltol / C)^(1 / (k + 1))), 1e-6, 1.0)
end
# Where products take the place of the Hessian a direction may hide from them.
watch_escape(cache::QNDFCache) = cache.newton.system isa KrylovSystem

function step!(cache::QNDFCache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    D, h = cache.D, state.h
    copyto!(D[1], state.y)
    cache.attempts += 1
    if cache.h == 0 || cache.attempts == 5        # where no step succeeds the past is no guide
        cache.order, cache.equal = 1, 0
        @. D[2] = -T(h) * state.g
        cache.h = h
    elseif cache.h != h
        rescale!(cache, h / cache.h)
        cache.h = h
    end
    k = cache.order
    copyto!(cache.prediction, D[1])
    copyto!(cache.b, D[1])
    α = (1 - T(QNDF_KAPPA[k])) * cache.gamma[k]
    for j in 1:k
        add_scaled!(cache.prediction, one(T), D[j+1])
        add_scaled!(cache.b, 1 - cache.gamma[j] / α, D[j+1])
    end
    escape = escape_limit(cache, state.reltol)
    state.escape = max(escape, 0.1)
    old = too_old(cache.newton, problem)
    step!(cache, problem, state, Float64(1 / α), escape, old) && return true
    return !old && blames_hessian(cache.newton) && step!(cache, problem, state, Float64(1 / α), escape, true)
end

function step!(cache::QNDFCache{T}, problem::FlowProblem{T}, state::FlowState{T}, γ::Float64, escape::Float64,
                  fresh::Bool) where {T}
    state.evaluated = false
    y = state.ynew
    copyto!(y, cache.prediction)
    prepare!(cache.newton, problem, y, γ, state.h, escape, fresh) || return false
    solve_newton!(y, cache.newton, problem, state, cache.b, true) || return false
    C = T(QNDF_ERROR[cache.order])
    @. cache.change = y - cache.prediction
    @. state.err = C * cache.change
    return true
end

"""
The differences of the same polynomial for a step `factor` times as long (Shampine and Reichelt, section 2.2):
∇^j of the new grid is Σ_i M[i, j] ∇^i of the old one, M = R(factor) R(1).
"""
function rescale!(cache::QNDFCache{T}, factor::Float64) where {T}
    D, spare, k = cache.D, cache.spare, cache.order
    for j in 1:k
        fill!(spare[j], zero(T))
        for i in 1:k
            m = zero(T)
            for l in 1:k
                m += grid_product(T(factor), i, l) * grid_product(one(T), l, j)
            end
            add_scaled!(spare[j], m, D[i+1])
        end
    end
    for j in 1:k
        D[j+1], spare[j] = spare[j], D[j+1]
    end
    cache.equal = 0
    return nothing
end

function grid_product(θ, i::Int, j::Int)
    r = one(θ)
    for m in 1:i
        r *= (m - 1 - θ * j) / m
    end
    return r
end

function accepted!(cache::QNDFCache{T}) where {T}
    D, k = cache.D, cache.order
    # ∇^(k+2) and ∇^(k+1) of the new point, from there down the others.
    @. D[k+3] = cache.change - D[k+2]
    copyto!(D[k+2], cache.change)
    for j in k+1:-1:1
        add_scaled!(D[j], one(T), D[j+1])
    end
    cache.equal += 1
    cache.attempts = 0
    cache.newton.age += 1
    return nothing
end

function restart!(cache::QNDFCache)
    cache.newton.age, cache.h, cache.attempts, cache.held = -1, 0.0, 0, false
    return nothing
end

# The method has no limit of stability along the real axis.
function measure!(cache::QNDFCache, state::FlowState)
    state.stiffness = 0.0
    state.longest = Inf
    return nothing
end

# Order and step change together, after k + 1 equal steps at the earliest, when the differences for the next order are
# known; to the order that allows the longest step, and not for little, as each change costs a factorisation.
function next_factor!(cache::QNDFCache{T}, control::Controller, state::FlowState{T}, problem::FlowProblem{T},
                      clean::Bool, indefinite::Bool) where {T}
    k, D = cache.order, cache.D
    cache.held |= indefinite
    indefinite && (control.growth = 1.25)
    control.order = k + 1
    state.factor = 1.0
    cache.equal > k || return nothing
    best, factor = k, step_factor(k, state.error)
    if k > 1
        lower = step_factor(k - 1, Float64(QNDF_ERROR[k-1]) * point_norm(D[k+1], problem, state))
        lower > factor && ((best, factor) = (k - 1, lower))
    end
    if k < QNDF_ORDER
        higher = step_factor(k + 1, Float64(QNDF_ERROR[k+1]) * point_norm(D[k+3], problem, state))
        # An unstable direction is followed in longer steps by a higher order, whatever the error.
        (higher > factor || cache.held && higher >= 1) && ((best, factor) = (k + 1, higher))
    end
    best == k && 0.9 <= factor < 1.2 && return nothing
    state.factor = clamp(factor, MIN_FACTOR, control.growth)
    control.growth = min(MAX_GROWTH, 1.5 * control.growth)
    control.order = best + 1
    cache.order, cache.equal, cache.held = best, 0, false
    return nothing
end

step_factor(order::Int, error::Float64) = SAFETY * max(error, 1e-10)^(-1 / (order + 1))

function interpolant!(c::Vector{T}, offset::Int, cache::QNDFCache{T}, problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    n, k, difference = problem.n, cache.order, cache.spare[1]
    copyto!(c, offset + 1, state.ynew, 1, n)
    for i in offset+n+1:offset+(QNDF_ORDER+1)*n
        c[i] = zero(T)
    end
    copyto!(difference, cache.change)
    for j in k:-1:1
        add_scaled!(difference, one(T), cache.D[j+1])          # ∇^j of the new point
        for m in 0:j
            weight, at = cache.basis[m+1, j], offset + m * n
            @inbounds @simd for i in 1:n
                c[at+i] += weight * difference[i]
            end
        end
    end
    return nothing
end

register!(FLOW_METHODS, "QNDF", QNDF(),
          "implicit multistep method of order 1 to 5, with few Hessians (Shampine and Reichelt 1997)";
          when="late times with large nets: Hessian-vector products beyond $DENSE_LIMIT parameters")
