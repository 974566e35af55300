# What a pair of units contributes to loss, gradient and Hessian.

"""
    PairSums

`epq` is E[f⁽ᵖ⁾(h₁) g⁽ᵠ⁾(h₂)], times r₁ for each derivative of f beyond the second and r₂ for each of g.
"""
mutable struct PairSums
    e00::Float64
    e10::Float64
    e01::Float64
    e20::Float64
    e11::Float64
    e02::Float64
    e30::Float64
    e21::Float64
    e12::Float64
    e03::Float64
    e40::Float64
    e31::Float64
    e22::Float64
    e13::Float64
    e04::Float64
end
PairSums() = PairSums(ntuple(_ -> 0.0, 15)...)

"""
    Moments

For F = f g it holds E[F] (`m00`), and for F = f⁽ᵖ⁾ g⁽ᵠ⁾, p + q ≤ 2, `mpq` = E[F] with

    E[F x] = xpq v₁ + ypq v₂
    E[F (x xᵀ - 1)] = xxpq v₁v₁ᵀ + xypq (v₁v₂ᵀ + v₂v₁ᵀ) + yypq v₂v₂ᵀ

in the basis `v1`, `v2` that suits the rule: the units' own directions, or an orthonormal one, in which all numbers stay
finite when the directions meet.
"""
mutable struct Moments
    m00::Float64
    m10::Float64
    x10::Float64
    y10::Float64
    m01::Float64
    x01::Float64
    y01::Float64
    m11::Float64
    x11::Float64
    y11::Float64
    xx11::Float64
    xy11::Float64
    yy11::Float64
    m20::Float64
    x20::Float64
    y20::Float64
    xx20::Float64
    xy20::Float64
    yy20::Float64
    m02::Float64
    x02::Float64
    y02::Float64
    xx02::Float64
    xy02::Float64
    yy02::Float64
    v1::Vector{Float64}
    v2::Vector{Float64}
end
Moments(D::Int) = Moments(ntuple(_ -> 0.0, 25)..., zeros(D), zeros(D))

"Moments from sums, by integration by parts (Stein's lemma): E[F x] = E[∂F/∂h₁] w₁ + E[∂F/∂h₂] w₂."
function from_sums!(m::Moments, e::PairSums, p::Neuron, q::Neuron, order::Int)
    a, b = p.r, q.r
    m.m00 = e.e00
    order == 0 && return m
    copyto!(m.v1, p.n)
    copyto!(m.v2, q.n)
    m.m10, m.x10, m.y10 = e.e10, a * e.e20, b * e.e11
    m.m01, m.x01, m.y01 = e.e01, a * e.e11, b * e.e02
    order == 1 && return m
    m.m11, m.x11, m.y11 = e.e11, a * e.e21, b * e.e12
    m.xx11, m.xy11, m.yy11 = a * e.e31, a * b * e.e22, b * e.e13
    m.m20, m.x20, m.y20 = e.e20, e.e30, b * e.e21
    m.xx20, m.xy20, m.yy20 = e.e40, b * e.e31, b * b * e.e22
    m.m02, m.x02, m.y02 = e.e02, a * e.e12, e.e03
    m.xx02, m.xy02, m.yy02 = a * a * e.e22, a * e.e13, e.e04
    return m
end

"""
    orthonormal!(m, p, q, u) -> s

Basis v₁ = n₁ and v₂ ⟂ v₁ with n₂ = u v₁ + s v₂. From the difference of the directions, not √(1 - u²): s keeps its
digits when they meet, and is zero with v₂ = 0 when they are equal.
"""
function orthonormal!(m::Moments, p::Neuron, q::Neuron, u::Float64)
    v1, v2 = copyto!(m.v1, p.n), m.v2
    s = 0.0
    @inbounds for d in eachindex(v1)
        v2[d] = muladd(-u, v1[d], q.n[d])
        s = muladd(v2[d], v2[d], s)
    end
    s = sqrt(s)
    s < 1e-15 && (s = 0.0)
    @inbounds for d in eachindex(v1)
        v2[d] = s > 0 ? v2[d] / s : 0.0
    end
    return s
end

"Components by (v₁, v₂) of x n₂ + y ê, where ê = s v₁ - u v₂ completes n₂ = u v₁ + s v₂."
turn(u, s, x, y) = (u * x + s * y, s * x - u * y)
turn(u, s, xx, xy, yy) = (u * u * xx + 2u * s * xy + s * s * yy, u * s * (xx - yy) + (s * s - u * u) * xy,
                          s * s * xx - 2u * s * xy + u * u * yy)
