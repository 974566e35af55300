"""
    ExpAdams()

Linearised exponential multistep method of order 3 to 9 in predictor–corrector form, on the eigendecomposition of the
Hessian: one gradient a step, and a Hessian and a symmetric eigenproblem every 8 to 30 steps.

With J = -∇²L at the last point where the Hessian was taken, the flow is y′ = Jy + n(y). The linear part is followed
exactly; the remainder n is a polynomial in time through its values at past points and, in the corrector, at the end of
the step. Where a Hessian was taken the derivative of n along the flow is known too and interpolated with it (Hermite),
so that it vanishes where J is that of the point. What the corrector adds is the error estimate. The number of
interpolated values, 2 to 8, and the step change together.

Points between the first and the last one are the predictor's, whose loss and gradient are evaluated; the corrected
point, which is nearer to the flow, is where the next step begins. Where a continuous solution is asked for, and at the
end, the corrected point is evaluated too.

M. Hochbruck and A. Ostermann, *Exponential multistep methods of Adams-type*, BIT Numerical Mathematics 51 (2011)
889–908.
"""
struct ExpAdams <: FlowMethod end

const ADAMS_LEAST, ADAMS_MOST = 2, 8       # values that the predictor interpolates
# a failed step costs as much as one that leads on; 0.9 takes 8% more gradients
const ADAMS_SAFETY = 0.75 / SAFETY

"""
How many steps share a Hessian: more where it costs more. With one hidden layer it takes about 3 + n/30 gradients, and
its eigenproblem n²/N on N samples.
On nets of 31 to 201 parameters 4 to 10 steps cost the same within a fifth where an eigenproblem is for nothing.
"""
function steps_per_hessian(n::Int, samples::Int)
    price = 3 + n / 30 + (samples == 0 ? 0.0 : n^2 / samples)
    return clamp(round(Int, 5 * sqrt(price)), 8, 30)
end

"A point of the corrected solution, `behind` the current one; f and, if `known`, its derivative along the flow."
mutable struct PastPoint{T<:AbstractFloat}
    y::Vector{T}
    f::Vector{T}
    slope::Vector{T}
    known::Bool
    behind::Float64
    n::Vector{T}             # the remainder there less that at the current point, in the basis of eigenvectors
    dn::Vector{T}            # and its derivative by time, if known
end
PastPoint(::Type{T}, n::Int) where {T} =
    PastPoint{T}(zeros(T, n), zeros(T, n), zeros(T, n), false, 0.0, zeros(T, n), zeros(T, n))

mutable struct ExpAdamsCache{T<:AbstractFloat} <: ExponentialCache{T}
    H::Matrix{T}
    eigen::SymmetricEigen{T}
    age::Int                 # accepted steps since the Hessian was taken, -1 without one
    period::Int              # of the Hessian, zero before it is known
    attempts::Int            # since the last accepted step
    moved::Bool              # the current point is a new one
    past::Vector{PastPoint{T}}       # the current point first
    count::Int
    order::Int               # values that the predictor interpolates
    chosen::Int              # those of the next step
    h::T
    offset::Vector{T}        # from the point that the flow is said to be at to the corrected one
    trial::Vector{T}         # the same at the end of the step
    f::Vector{T}             # f, the corrected step, a step, the corrector's part, in the basis of eigenvectors
    move::Vector{T}
    step::Vector{T}
    correction::Vector{T}
    gradient::Vector{T}
    x::Vector{T}             # interpolated times, oldest first, in steps from the current one
    values::Int
    newest::Matrix{T}        # divided differences over the newest 1, 2, … values, without and with the end of the step
    ended::Matrix{T}
    moments::Matrix{T}
    weights::Matrix{T}
    basis::Vector{T}
    nodes::Vector{T}
    vandermonde::Matrix{T}
    polynomial::Vector{T}
end

function ExpAdamsCache(::Type{T}, n::Int) where {T}
    z() = zeros(T, n)
    most = ADAMS_MOST + 2            # one more for the choice of the order, and one as slopes come along with values
    table() = zeros(T, n, most + 1)
    return ExpAdamsCache{T}(zeros(T, n, n), SymmetricEigen{T}(n), -1, 0, 0, true,
                            [PastPoint(T, n) for _ in 0:ADAMS_MOST], 1,
                            ADAMS_LEAST, ADAMS_LEAST, zero(T), z(), z(), z(), z(), z(), z(), z(), zeros(T, most), 0,
                            table(), table(), table(), table(), zeros(T, most + 1), T[], zeros(T, 0, 0),
                            zeros(T, 6n))
end

make_state(::ExpAdams, ::Type{T}, n::Int) where {T} = ExpAdamsCache(T, n)
method_name(::ExpAdamsCache) = "ExpAdams"
controller(::ExpAdamsCache) = Controller(true, ADAMS_LEAST + 1)
watch_escape(cache::ExpAdamsCache) = cache.age > 0       # with the Hessian of the point growth is exact

function step!(cache::ExpAdamsCache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    cache.attempts += 1
    cache.period == 0 && (cache.period = steps_per_hessian(problem.n, sample_count(problem.net)::Int))
    # After two failures the Hessian may be to blame.
    if cache.age < 0 || cache.age >= cache.period || cache.attempts > 2 && cache.age > 0
        linearise!(cache, problem, state) || return false
    elseif cache.moved
        move_base!(cache, state)
    end
    eigen, f, step, correction = cache.eigen, cache.f, cache.step, cache.correction
    λ, y, now = eigen.values, state.ynew, cache.past[1]
    cache.h = h = T(min(state.h, Float64(floatmax(T)) / 1e3))
    interpolate!(cache)
    cache.order = k = min(cache.chosen, cache.values)
    weights!(cache, one(T), k + 2)
    newest, ended = cache.newest, cache.ended
    solution!(step, cache, k, one(T))
    rotate!(y, 'N', eigen, step)
    add_scaled!(y, one(T), now.y)
    value_and_gradient_at!(state.gnew, problem, y)
    state.lossnew, state.gnormnew = problem.value[], problem.gnorm
    n = rotate!(cache.gradient, 'T', eigen, state.gnew)
    @inbounds @simd for i in eachindex(n)
        n[i] = λ[i] * step[i] - n[i] - f[i]
    end
    add_value!(ended, newest, cache.x, cache.values, one(T), n)
    add_corrector!(fill!(correction, zero(T)), cache, k)
    rotate!(cache.trial, 'N', eigen, correction)
    copyto!(state.err, cache.trial)
    @inbounds @simd for i in eachindex(step)
        cache.move[i] = step[i] + correction[i]
    end
    # The point where the gradient is known is as near to the flow as the tolerance says; the corrected one is nearer,
    # and the next step begins there. Where it shall be seen it is evaluated.
    state.evaluated = !(state.continuous || state.h >= (state.t_end - state.t) - state.t_low)
    if !state.evaluated
        add_scaled!(y, one(T), cache.trial)
        fill!(cache.trial, zero(T))
        state.continuous && interpolation_error!(state.err, cache, problem, state)
    end
    return true
end

"The corrected point, and f there by the linear part at the point where it was evaluated."
function correct_point!(cache::ExpAdamsCache{T}, state::FlowState{T}) where {T}
    now, eigen, w = cache.past[1], cache.eigen, cache.gradient
    rotate!(w, 'T', eigen, cache.offset)
    @inbounds @simd for i in eachindex(w)
        w[i] *= eigen.values[i]
    end
    rotate!(now.f, 'N', eigen, w)
    @inbounds @simd for i in eachindex(w)
        now.y[i] = state.y[i] + cache.offset[i]
        now.f[i] = -state.g[i] - now.f[i]
    end
    cache.moved = false
    return now
end

"Take the Hessian at the current point, and the remainder that goes with it at all others."
function linearise!(cache::ExpAdamsCache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    hessian_at!(cache.H, problem, state.y)
    decompose!(cache.eigen, cache.H) || return false
    now, eigen, f, w = correct_point!(cache, state), cache.eigen, cache.f, cache.gradient
    λ = eigen.values
    rotate!(f, 'T', eigen, now.f)
    @inbounds @simd for i in eachindex(w)
        w[i] = -λ[i] * f[i]
    end
    rotate!(now.slope, 'N', eigen, w)
    now.known = true
    fill!(now.n, zero(T))
    fill!(now.dn, zero(T))
    for j in 2:cache.count
        p = cache.past[j]
        remainder!(p.n, cache, p.f, p.y, now)
        p.known && remainder!(p.dn, cache, p.slope, p.f, nothing)
    end
    cache.age = 0
    return true
end

# f - J y, or the same of their derivatives, relative to the point `now`.
function remainder!(n::Vector{T}, cache::ExpAdamsCache{T}, f, y, now) where {T}
    eigen, λ, w, v = cache.eigen, cache.eigen.values, cache.gradient, cache.correction
    copyto!(v, f)
    now === nothing || add_scaled!(v, -one(T), now.f)
    rotate!(n, 'T', eigen, v)
    copyto!(v, y)
    now === nothing || add_scaled!(v, -one(T), now.y)
    rotate!(w, 'T', eigen, v)
    @inbounds @simd for i in eachindex(n)
        n[i] += λ[i] * w[i]
    end
    return n
end

"The same linear part at a new current point: remainders are those before less that of the new point."
function move_base!(cache::ExpAdamsCache{T}, state::FlowState{T}) where {T}
    now, f, n, λ = correct_point!(cache, state), cache.f, cache.step, cache.eigen.values
    fnew = rotate!(cache.gradient, 'T', cache.eigen, now.f)
    @inbounds @simd for i in eachindex(f)
        n[i] = fnew[i] - f[i] + λ[i] * cache.move[i]
    end
    for j in 2:cache.count
        add_scaled!(cache.past[j].n, -one(T), n)
    end
    copyto!(f, fnew)
    fill!(now.n, zero(T))
    return nothing
end

# Divided differences: a column for each number of newest values, of which `s` becomes the first.
function add_value!(new::Matrix{T}, old::Matrix{T}, x, values::Int, s::T, value) where {T}
    @inbounds for i in eachindex(value)
        new[i, 1] = value[i]
    end
    divide!(new, old, x, values, s, 1)
    return nothing
end

function divide!(new::Matrix{T}, old::Matrix{T}, x, values::Int, s::T, from::Int) where {T}
    for m in from:values
        w = 1 / (s - x[values-m+1])
        @inbounds @simd for i in 1:size(new, 1)
            new[i, m+1] = (new[i, m] - old[i, m]) * w
        end
    end
    return nothing
end

# `s` once more, with the derivative there.
function add_slope!(new::Matrix{T}, old::Matrix{T}, x, values::Int, s::T, slope, h::T) where {T}
    @inbounds for i in eachindex(slope)
        new[i, 1] = old[i, 1]
        new[i, 2] = h * slope[i]
    end
    divide!(new, old, x, values, s, 2)
    return nothing
end

"Divided differences over the newest values: as many as the predictor takes and one more, if there are so many."
function interpolate!(cache::ExpAdamsCache{T}) where {T}
    oldest, values = 0, 0
    while oldest < cache.count && values <= cache.chosen
        oldest += 1
        values += 1 + cache.past[oldest].known
    end
    cache.values = 0
    for j in oldest:-1:1
        p = cache.past[j]
        s = -T(p.behind / Float64(cache.h))
        add_value!(cache.ended, cache.newest, cache.x, cache.values, s, p.n)
        keep_value!(cache, s)
        p.known || continue
        add_slope!(cache.ended, cache.newest, cache.x, cache.values, s, p.dn, cache.h)
        keep_value!(cache, s)
    end
    return nothing
end

function keep_value!(cache::ExpAdamsCache{T}, s::T) where {T}
    cache.newest, cache.ended = cache.ended, cache.newest
    cache.values += 1
    cache.x[cache.values] = s
    return nothing
end

"""
    weights!(cache, s, m)

Weights, for each eigenvalue, of the first `m` Newton polynomials ω of the newest values in the solution at `s`:
∫₀ˢ e^((s-u)z) ω(u) du with z = -hλ, in `cache.weights`. `cache.moments` has those of (u/s)^j, divided by s.
"""
function weights!(cache::ExpAdamsCache{T}, s::T, m::Int) where {T}
    W, M, a, λ = cache.weights, cache.moments, cache.basis, cache.eigen.values
    m = min(m, cache.values + 1)
    moments!(M, λ, -s * cache.h, m)
    fill!(a, zero(T))
    a[1] = one(T)
    for k in 1:m
        @inbounds for i in eachindex(λ)
            W[i, k] = zero(T)
        end
        power = s
        for j in 1:k
            b = a[j] * power
            @inbounds @simd for i in eachindex(λ)
                W[i, k] += b * M[i, j]
            end
            power *= s
        end
        k == m && break
        x = cache.x[cache.values-k+1]
        for j in k+1:-1:2
            a[j] = a[j-1] - x * a[j]
        end
        a[1] *= -x
    end
    return nothing
end

# Above which |z| the recurrence upwards loses less than the one downwards takes terms of a series.
const UPWARDS = 4

"""
    moments!(M, λ, factor, m)

∫₀¹ e^((1-u)z) u^j du = j! φ_{j+1}(z) with z = λ factor, for j < m, a column for each j. They obey z M_j = j M_{j-1} -
1.
"""
function moments!(M::Matrix{T}, λ::Vector{T}, factor::T, m::Int) where {T}
    small(z) = ifelse(abs(z) < UPWARDS, z, zero(z))
    last, term = m, one(T)
    while term > eps(T) / 16
        last += 1
        term *= T(UPWARDS) / last
    end
    @inbounds for i in eachindex(λ)
        M[i, m] = one(T)
    end
    for j in last:-1:m+1                  # Σ z^q m!/(m + q)! by Horner's rule
        r = 1 / T(j)
        @inbounds @simd for i in eachindex(λ)
            M[i, m] = 1 + small(λ[i] * factor) * r * M[i, m]
        end
    end
    @inbounds for i in eachindex(λ)
        M[i, m] /= m
    end
    for j in m-1:-1:1
        r = 1 / T(j)
        @inbounds @simd for i in eachindex(λ)
            M[i, j] = (small(λ[i] * factor) * M[i, j+1] + 1) * r
        end
    end
    @inbounds for i in eachindex(λ)
        z = λ[i] * factor
        abs(z) < UPWARDS && continue
        r = 1 / z
        M[i, 1] = expm1(z) * r
        for j in 1:m-1
            M[i, j+1] = (j * M[i, j] - 1) * r
        end
    end
    return M
end

"y(s) - y(0) of the predictor of `k` values, in the basis of eigenvectors, by the weights for `s`."
function solution!(out::Vector{T}, cache::ExpAdamsCache{T}, k::Int, s::T) where {T}
    W, D, M, f, h = cache.weights, cache.newest, cache.moments, cache.f, cache.h
    @inbounds @simd for i in eachindex(out)
        out[i] = (s * h * M[i, 1]) * f[i]       # φ f alone would underflow for the longest steps
    end
    for m in 1:k
        @inbounds @simd for i in eachindex(out)
            out[i] += (h * W[i, m]) * D[i, m]
        end
    end
    return out
end

"What the value at the end of the step adds to that."
function add_corrector!(out::Vector{T}, cache::ExpAdamsCache{T}, k::Int) where {T}
    W, D, h = cache.weights, cache.ended, cache.h
    @inbounds @simd for i in eachindex(out)
        out[i] += (h * W[i, k+1]) * D[i, k+1]
    end
    return out
end

"y(s) - y(0) of the corrected solution."
function continuous!(out, cache::ExpAdamsCache{T}, state, s::T) where {T}
    k, w = cache.order, cache.step
    weights!(cache, s, k + 1)
    solution!(w, cache, k, s)
    add_corrector!(w, cache, k)
    return rotate!(out, 'N', cache.eigen, w)
end

function accepted!(cache::ExpAdamsCache)
    past = cache.past
    spare = past[end]
    for j in length(past):-1:2
        past[j] = past[j-1]
        past[j].behind += Float64(cache.h)
    end
    past[1] = spare
    spare.behind, spare.known = 0.0, false
    cache.count = min(cache.count + 1, length(past))
    cache.offset, cache.trial = cache.trial, cache.offset
    cache.age += 1
    cache.attempts = 0
    cache.moved = true
    return nothing
end

function restart!(cache::ExpAdamsCache{T}) where {T}
    fill!(cache.offset, zero(T))
    cache.count, cache.age, cache.attempts, cache.moved = 1, -1, 0, true
    cache.past[1].behind = 0.0
    cache.chosen = ADAMS_LEAST
    return nothing
end

# Order and step change together, to the order that allows the longest step.
function next_factor!(cache::ExpAdamsCache{T}, control::Controller, state::FlowState{T}, problem::FlowProblem{T},
                      clean::Bool, indefinite::Bool) where {T}
    k = cache.order
    state.continuous && weights!(cache, one(T), k + 2)       # the interpolant took others
    best, error = k, max(state.error, 1e-10)
    factor = step_factor(k, error)
    for other in (k - 1, k + 1)
        ADAMS_LEAST <= other <= min(ADAMS_MOST, cache.values) || continue
        rotate!(cache.gradient, 'N', cache.eigen, add_corrector!(fill!(cache.correction, zero(T)), cache, other))
        e = max(point_norm(cache.gradient, problem, state), 1e-10)
        step_factor(other, e) > factor && ((best, error, factor) = (other, e, step_factor(other, e)))
    end
    # As for all stiff methods, with what the last step has shown of the error to come.
    best == k && control.h > 0 &&
        (factor = min(factor, factor * (state.h / control.h) * (control.err / error)^(1 / (k + 1))))
    control.err, control.h, control.order = max(error, 1e-4), state.h, best + 1
    cache.chosen = best
    state.factor = clamp(ADAMS_SAFETY * factor, MIN_FACTOR, clean ? MAX_GROWTH : 1.0)
    return nothing
end

register!(FLOW_METHODS, "ExpAdams", ExpAdams(),
          "exponential multistep method of order 3 to 9 on the Hessian's eigenvectors (Hochbruck and Ostermann 2011)";
          matrices=4, when="smooth nets: the fewest gradients and Hessians")
