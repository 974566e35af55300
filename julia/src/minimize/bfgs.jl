# BFGS with a dense inverse Hessian.

"""
    BFGS()

Broyden, Fletcher, Goldfarb & Shanno's quasi-Newton method (Nocedal & Wright, Numerical Optimization, 2006,
ch. 6) on the inverse Hessian, updated in place, with Hager and Zhang's line search; scaled by sᵀy/yᵀy at
the first update. Costs one gradient and 3P² operations per line search step and iteration; memory P².
"""
struct BFGS <: MinimizeMethod end
name(::BFGS) = "BFGS"

mutable struct BFGSState{T<:AbstractFloat}
    x::Vector{T}
    gradient::Vector{T}
    loss::T
    gnorm::T
    lowest_loss::T
    ray::Ray{T}
    inverse::Matrix{T}      # lower triangle of the approximate inverse Hessian
    change::Vector{T}       # y, the change of the gradient
    image::Vector{T}        # inverse * y
    fresh::Bool             # inverse is a multiple of the identity
    stalled::Int            # iterations in a row without a resolvable decrease
end

function initial_state(::BFGS, objective::Objective{T}, x0::Vector{T}) where {T}
    P = length(x0)
    gradient = zeros(T, P)
    loss = evaluate!(gradient, objective, x0)
    state = BFGSState{T}(copy(x0), gradient, loss, supnorm(gradient), loss, Ray{T}(P), zeros(T, P, P),
                         zeros(T, P), zeros(T, P), true, 0)
    reset!(state)
    return state
end

function reset!(state::BFGSState{T}) where {T}
    W = state.inverse
    for i in eachindex(W)
        W[i] = zero(T)
    end
    for i in 1:size(W, 1)
        W[i, i] = one(T)
    end
    state.fresh = true
    return state
end

const STALLED_ITERATIONS = 20

function iterate!(state::BFGSState{T}, objective::Objective{T}, ::BFGS) where {T}
    ray = state.ray
    direct!(state)
    ray.loss = state.loss
    slack = loss_noise(state.lowest_loss)
    alpha = state.fresh ? first_step(state) : one(T)
    found = ray.slope < 0 && isfinite(alpha) && alpha > 0 &&
            line_search!(ray, objective, state.x, alpha, slack) && !worse(ray.trial_loss, state.lowest_loss)
    if !found
        state.fresh && return Stop.roundoff
        reset!(state)
        return Stop.running
    end
    trial_gnorm = supnorm(ray.trial_gradient)
    decreased = state.loss - ray.trial_loss > 4 * eps(T) * abs(state.loss) ||
                trial_gnorm < T(0.9) * state.gnorm
    state.stalled = decreased ? 0 : state.stalled + 1
    for i in eachindex(state.x)
        state.change[i] = ray.trial_gradient[i] - state.gradient[i]
        ray.direction[i] = ray.trial[i] - state.x[i]
    end
    update_inverse!(state)
    state.x, ray.trial = ray.trial, state.x
    state.gradient, ray.trial_gradient = ray.trial_gradient, state.gradient
    state.loss = ray.trial_loss
    state.gnorm = trial_gnorm
    state.lowest_loss = min(state.lowest_loss, state.loss)
    return state.stalled >= STALLED_ITERATIONS ? Stop.roundoff : Stop.running
end

"Direction −W∇L and its slope; steepest descent after a reset where W has lost definiteness to rounding."
function direct!(state::BFGSState{T}) where {T}
    ray = state.ray
    for attempt in 1:2
        symmetric_product!(ray.direction, state.inverse, state.gradient)
        for i in eachindex(ray.direction)
            ray.direction[i] = -ray.direction[i]
        end
        ray.slope = dot_product(state.gradient, ray.direction)
        (ray.slope < 0 && isfinite(ray.slope)) && return state
        reset!(state)
    end
    return state
end

"First step along −∇L: 1 % of the largest parameter, or of the loss were it linear (Hager & Zhang, I0)."
function first_step(state::BFGSState{T}) where {T}
    size = supnorm(state.x)
    size > 0 && return T(0.01) * size / state.gnorm
    state.loss != 0 && return T(0.01) * abs(state.loss) / abs(state.ray.slope)
    return one(T)
end

"`y ← W v` from the lower triangle of `W`."
function symmetric_product!(y::Vector{T}, W::Matrix{T}, v::Vector{T}) where {T}
    P = length(v)
    for i in 1:P
        y[i] = zero(T)
    end
    @inbounds for j in 1:P
        vj = v[j]
        s = zero(T)
        @simd for i in j+1:P
            y[i] = muladd(vj, W[i, j], y[i])
            s = muladd(W[i, j], v[i], s)
        end
        y[j] += vj * W[j, j] + s
    end
    return y
end

"W ← (I − ρsyᵀ)W(I − ρysᵀ) + ρssᵀ with ρ = 1/sᵀy as one symmetric rank-2 update of the lower triangle."
function update_inverse!(state::BFGSState{T}) where {T}
    W, s, y, Wy = state.inverse, state.ray.direction, state.change, state.image
    P = length(s)
    sy = dot_product(s, y)
    yy = dot_product(y, y)
    # s and y carry rounding errors of their own: a product near them says nothing about curvature.
    sy > eps(T) * two_norm(s) * sqrt(yy) && isfinite(yy) && yy > 0 || return state
    if state.fresh
        scale = sy / yy
        isfinite(scale) && scale > 0 || return state
        for i in 1:P
            W[i, i] = scale
        end
        state.fresh = false
    end
    symmetric_product!(Wy, W, y)
    factor = (1 + dot_product(y, Wy) / sy) / sy
    isfinite(factor) || return state
    # W + s uᵀ + u sᵀ with u = (factor/2) s − Wy/sy
    for i in 1:P
        Wy[i] = factor / 2 * s[i] - Wy[i] / sy
    end
    @inbounds for j in 1:P
        sj, uj = s[j], Wy[j]
        @simd for i in j:P
            W[i, j] += s[i] * uj + Wy[i] * sj
        end
    end
    return state
end

"BFGS has no Hessian to ask."
at_saddle!(::BFGSState, ::Objective) = false
