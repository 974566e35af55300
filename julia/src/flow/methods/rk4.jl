"""
    RK4()

The classical Runge–Kutta method of order 4 with a cubic Hermite interpolant, and an error estimate from the residual
of that interpolant at the two Gauss points of the step: five gradients a step, two of them for the estimate, and the
one at the new point.

L. F. Shampine, *Solving ODEs and DDEs with residual control*, Applied Numerical Mathematics 52 (2005) 113–127.
"""
struct RK4 <: FlowMethod end

mutable struct RK4Cache{T<:AbstractFloat} <: StepCache{T}
    k::Vector{Vector{T}}     # gradients of the stages, the first at y, the last at ynew
    y2::Vector{T}            # two stages at the same time, for the estimate of stiffness
    y3::Vector{T}
    residual::Vector{T}
    weights::Vector{T}
    gauss::NTuple{2,T}
    curvature::Float64
end

function RK4Cache(::Type{T}, n::Int) where {T}
    root = sqrt(T(3)) / 6
    return RK4Cache{T}(Vector{T}[zeros(T, n) for _ in 1:5], zeros(T, n), zeros(T, n), zeros(T, n),
                       T[1, 2, 2, 1] ./ 6, (T(1) / 2 - root, T(1) / 2 + root), 0.0)
end

make_state(::RK4, ::Type{T}, n::Int) where {T} = RK4Cache(T, n)
method_name(::RK4Cache) = "RK4"
controller(::RK4Cache) = Controller(false, 4)
interpolant_degree(::RK4Cache) = 3

# The method's growth along e^z is off by z⁴/120 in its rate.
escape_limit(::RK4Cache, reltol::Float64) = clamp((120 * reltol)^(1 / 4), 0.05, 1.5)
watch_escape(::RK4Cache) = true

# The error at the end of the step is at most the integral of the residual, which at the Gauss points of a cubic
# Hermite interpolant takes its greatest part (Shampine 2005): this factor times h times the residual there.
const RESIDUAL_FACTOR = 2.1342003655711

function step!(cache::RK4Cache{T}, problem::FlowProblem{T}, state::FlowState{T}) where {T}
    k, y, ynew = cache.k, state.y, state.ynew
    h = T(min(state.h, Float64(floatmax(T)) / 1e3))
    copyto!(k[1], state.g)
    add_scaled!(copyto!(cache.y2, y), -h / 2, k[1])
    gradient_at!(k[2], problem, cache.y2)
    add_scaled!(copyto!(cache.y3, y), -h / 2, k[2])
    gradient_at!(k[3], problem, cache.y3)
    add_scaled!(copyto!(ynew, y), -h, k[3])
    gradient_at!(k[4], problem, ynew)
    combine!(ynew, y, -h, cache.weights, k, 4)
    value_and_gradient_at!(k[5], problem, ynew)
    state.lossnew = problem.value[]
    state.gnormnew = problem.gnorm
    state.evaluated = true
    copyto!(state.gnew, k[5])
    fill!(state.err, zero(T))
    point, slope = cache.residual, state.err
    for (j, s) in enumerate(cache.gauss)
        # y(s) = y + s (ynew - y) + s (s - 1) ((1 - 2s)(ynew - y) + (s - 1) h f + s h fnew), f = -g
        a, b, c = s + s * (s - 1) * (1 - 2s), -h * s * (s - 1)^2, -h * s^2 * (s - 1)
        da, db, dc = 6s * (1 - s), -h * (s - 1) * (3s - 1), -h * s * (3s - 2)
        @inbounds @simd for i in eachindex(y)
            point[i] = y[i] + a * (ynew[i] - y[i]) + b * k[1][i] + c * k[5][i]
        end
        g = k[2 * j]         # the stages 2 and 4 are not needed any more
        gradient_at!(g, problem, point)
        @inbounds @simd for i in eachindex(y)
            r = da * (ynew[i] - y[i]) + db * k[1][i] + dc * k[5][i] + h * g[i]
            slope[i] = max(slope[i], T(RESIDUAL_FACTOR) * abs(r))
        end
    end
    return true
end

# As for Tsit5, between the second and the third stage; the interval of stability ends at 2.78. The second stage's
# gradient is gone: k2 and k3 at y2 and y3 is what is needed, so y3 - y2 = -h/2 (k2 - k1) stands for k2.
function measure!(cache::RK4Cache{T}, state::FlowState{T}) where {T}
    rise, run = zero(T), zero(T)
    y2, y3, k1, k3 = cache.y2, cache.y3, cache.k[1], cache.k[3]
    half = T(state.h) / 2
    @inbounds @simd for i in eachindex(y2)
        d = y3[i] - y2[i]
        k2 = k1[i] - d / half
        rise += (k3[i] - k2)^2
        run += d^2
    end
    curvature = run > 0 ? sqrt(Float64(rise / run)) : 0.0
    isfinite(curvature) && (cache.curvature = max(curvature, 0.99 * cache.curvature))
    state.stiffness = state.h * cache.curvature
    state.longest = 2.4 / cache.curvature
    return nothing
end

function interpolant!(c::Vector{T}, offset::Int, cache::RK4Cache{T}, problem::FlowProblem{T},
                      state::FlowState{T}) where {T}
    h = T(min(state.h, Float64(floatmax(T)) / 1e3))
    hermite!(c, offset, state.y, state.ynew, cache.k[1], cache.k[5], -h)
    return nothing
end

"Cubic Hermite polynomial of a step from its ends and `scale` times the derivatives there."
function hermite!(c::Vector{T}, offset::Int, y0::Vector{T}, y1::Vector{T}, d0::Vector{T}, d1::Vector{T},
                  scale::T) where {T}
    n = length(y0)
    @inbounds @simd for i in 1:n
        rise, a, b = y1[i] - y0[i], scale * d0[i], scale * d1[i]
        c[offset+i] = y0[i]
        c[offset+n+i] = a
        c[offset+2n+i] = 3 * rise - 2 * a - b
        c[offset+3n+i] = a + b - 2 * rise
    end
    return nothing
end

register!(FLOW_METHODS, "RK4", RK4(),
          "explicit Runge–Kutta method of order 4, with an embedded error estimate";
          when="to compare with published runs")
